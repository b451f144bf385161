#include "segments.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>
#include <utility>

const std::string& Settings::text(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) throw std::runtime_error("the model file has no metadata refineloc." + key);
  return found->second;
}

double Settings::number(const std::string& key) const {
  try {
    return std::stod(text(key));
  } catch (const std::logic_error&) {
    throw std::runtime_error("metadata refineloc." + key + ": expected a number, got " + text(key));
  }
}

std::vector<std::string> Settings::items(const std::string& key) const {
  std::vector<std::string> found(1);
  bool quoted = false, escaped = false;
  for (const char c : text(key)) {
    if (!quoted && (c == '[' || c == ']' || c == ' ')) continue;
    if (!quoted && c == ',') {
      found.emplace_back();
      continue;
    }
    if (c == '"' && !escaped) quoted = !quoted;
    escaped = c == '\\' && !escaped;
    found.back() += c;
  }
  return found;
}

namespace {

using Curve = std::vector<float>;   // a value a snippet
using Run = std::pair<long, long>;  // its first snippet, and the one past its last

// The runs of snippets that are kept. At most `max_gap` removed snippets lie between two that are joined.
template <class Kept>
std::vector<Run> runs(long snippets, long max_gap, Kept kept) {
  std::vector<Run> found;
  for (long t = 0; t < snippets; ++t) {
    if (!kept(t)) continue;
    if (!found.empty() && t - found.back().second <= max_gap) {
      found.back().second = t + 1;
    } else {
      found.emplace_back(t, t + 1);
    }
  }
  return found;
}

double mean(const Curve& curve, const Run& run) {
  const double sum = std::accumulate(curve.begin() + run.first, curve.begin() + run.second, 0.0);
  return sum / static_cast<double>(run.second - run.first);
}

Segment widened(const Run& run, long widen, long snippets, int label, double score) {
  const long first = std::max(run.first - widen, 0L), past = std::min(run.second + widen, snippets);
  return {label, static_cast<double>(first), static_cast<double>(past), score};
}

// Profiles `paper` and `release`: one threshold on the foreground, one on the class.
std::vector<Segment> one_threshold(const Outputs& of, const Settings& settings, int label, const Curve& c, double y) {
  const long snippets = of.snippets;
  const bool release = settings.is("profile", "release");
  const float least_foreground = static_cast<float>(1.0 - settings.number("alpha_a"));
  const float least_class = settings.threshold("alpha_c");
  const auto kept = [&](long t) {
    return release ? of.foreground[t] > least_foreground && c[t] > least_class
                   : of.foreground[t] >= least_foreground && c[t] >= least_class;
  };
  const auto dilated = [&](long t) {
    return kept(t) || (t > 0 && kept(t - 1)) || (t + 1 < snippets && kept(t + 1));
  };
  const auto found = release ? runs(snippets, 0, dilated) : runs(snippets, settings.count("max_gap"), kept);
  std::vector<Segment> segments;
  for (const Run& run : found) {
    const double score = mean(c, run) + mean(release ? of.foreground : of.attention, run) + y;
    segments.push_back(widened(run, settings.count("widen"), snippets, label, score));
  }
  return segments;
}

Curve normalised(Curve curve) {
  const auto [least, most] = std::minmax_element(curve.begin(), curve.end());
  const float low = *least, span = *most - low;
  for (float& value : curve) value = span > 0 ? (value - low) / span : 0;
  return curve;
}

// The mean over the run, less the mean over the ring around it: differences of sums from the first snippet on.
double contrast(const std::vector<double>& sums, const Run& run, double outer) {
  const long snippets = static_cast<long>(sums.size()) - 1, length = run.second - run.first;
  const long ring = static_cast<long>(std::min<double>(std::ceil(outer * length), snippets));
  const long left = std::max(run.first - ring, 0L), right = std::min(run.second + ring, snippets);
  const double inside = (sums[run.second] - sums[run.first]) / length;
  const long around = right - left - length;
  if (around == 0) return inside;
  return inside - ((sums[run.first] - sums[left]) + (sums[right] - sums[run.second])) / around;
}

// Profile `multi-threshold`: the runs of normalised curves above each of many thresholds.
std::vector<Segment> many_thresholds(const Outputs& of, const Settings& settings, int label, const Curve& c, double y) {
  const Curve x = normalised(c);
  std::set<Run> found;  // a run that is found several times is one
  for (const std::string& item : settings.items("thresholds")) {
    const float threshold = static_cast<float>(std::stod(item));
    const auto add = [&](const Curve& curve) {
      for (const Run& run : runs(of.snippets, settings.count("max_gap"), [&](long t) { return curve[t] > threshold; }))
        found.insert(run);
    };
    if (!settings.is("curve", "foreground")) add(x);
    if (!settings.is("curve", "class")) add(normalised(of.foreground));
  }

  const bool by_contrast = settings.is("scoring", "contrast");
  Curve scored = by_contrast ? x : c;
  if (settings.is("scored_on", "product")) {
    for (long t = 0; t < of.snippets; ++t) scored[t] = of.foreground[t] * c[t];
  }
  std::vector<double> sums(1);
  for (const float value : scored) sums.push_back(sums.back() + value);

  std::vector<Segment> segments;
  for (const Run& run : found) {
    double score = by_contrast ? contrast(sums, run, settings.number("outer"))
                               : *std::max_element(scored.begin() + run.first, scored.begin() + run.second);
    score *= std::pow(static_cast<double>(run.second - run.first), settings.number("length_power"));
    score = settings.is("video_term", "multiply") ? std::max(score, 0.0) * y
                                                  : score + settings.number("video_weight") * y;
    segments.push_back(widened(run, settings.count("widen"), of.snippets, label, score));
  }
  return segments;
}

// Profile `boundaries`: a student's own segments, one for each of its points.
std::vector<Segment> own_segments(const Outputs& of, const Settings& settings, int label, double share) {
  if (of.distances.empty()) throw std::runtime_error("the model has no outputs point_scores and distances");
  std::vector<Segment> segments;
  const long points = static_cast<long>(of.distances.size() / 2);
  for (long point = 0, step = 1; point < points; step *= 2) {  // a level has a point every `step` snippets
    for (long t = 0; t < of.snippets && point < points; t += step, ++point) {
      const double middle = static_cast<double>(t) + 0.5;
      const double first = std::max(middle - of.distances[2 * point], 0.0);
      const double past = std::min(middle + of.distances[2 * point + 1], static_cast<double>(of.snippets));
      const double score = of.point_scores[point * of.classes + label] * share;
      if (score >= settings.number("point_score") && first < past) segments.push_back({label, first, past, score});
    }
  }
  return segments;
}

// ŷ by which classes are chosen: the model's, or the mean class scores where the foreground is highest.
std::vector<float> video_scores(const Outputs& of, const Settings& settings) {
  const double share = settings.has("video_share") ? settings.number("video_share") : 0;
  if (share == 0) return of.video_scores;
  std::vector<long> order(of.snippets);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](long a, long b) { return of.foreground[a] > of.foreground[b]; });
  order.resize(static_cast<std::size_t>(std::min<double>(std::ceil(share * of.snippets), of.snippets)));
  std::sort(order.begin(), order.end());
  std::vector<float> y;
  for (long n = 0; n < of.classes; ++n) {
    double sum = 0;
    for (const long t : order) sum += of.class_scores[t * of.classes + n];
    y.push_back(static_cast<float>(sum / static_cast<double>(order.size())));
  }
  return y;
}

// The classes of the largest ŷ, best first; of equal ones the lower index.
std::vector<int> chosen_classes(const std::vector<float>& y, const Settings& settings) {
  std::vector<int> classes(y.size());
  std::iota(classes.begin(), classes.end(), 0);
  std::stable_sort(classes.begin(), classes.end(), [&](int a, int b) { return y[a] > y[b]; });
  classes.resize(std::min<std::size_t>(classes.size(), settings.count("top_k")));
  if (settings.has("class_threshold")) {
    const float least = settings.threshold("class_threshold") * y[classes[0]];
    classes.erase(std::find_if(classes.begin(), classes.end(), [&](int n) { return y[n] < least; }), classes.end());
  }
  return classes;
}

double overlap(const Segment& a, const Segment& b) { return std::min(a.past, b.past) - std::max(a.first, b.first); }

double together(const Segment& a, const Segment& b) {
  return (a.past - a.first) + (b.past - b.first) - overlap(a, b);
}

// What is left of the segments of one class where they overlap, in their order.
std::vector<Segment> suppressed(std::vector<Segment> segments, const Settings& settings, const std::string& kind) {
  if (kind == "none") return segments;
  if (kind == "soft" || kind == "soft-vote") {
    const auto negative = [](const Segment& segment) { return segment.score < 0; };
    segments.erase(std::remove_if(segments.begin(), segments.end(), negative), segments.end());
  }
  enum State { left, kept, dropped };
  std::vector<State> state(segments.size(), left);
  for (;;) {
    std::size_t at = segments.size();  // of the best that is left; of equal ones the earlier
    for (std::size_t i = 0; i < segments.size(); ++i)
      if (state[i] == left && (at == segments.size() || segments[i].score > segments[at].score)) at = i;
    if (at == segments.size()) break;
    state[at] = kept;
    const Segment best = segments[at];
    const auto chance = [](double score) { return std::min(std::max(score, 0.0), 1.0); };
    double votes = best.score, right = chance(best.score), weights = 1, to_first = 0, to_past = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      Segment& other = segments[i];
      if (state[i] != left) continue;
      if (kind == "soft") {
        const double tiou = std::max(overlap(best, other), 0.0) / together(best, other);
        other.score *= std::exp(-(tiou * tiou) / settings.number("soft_sigma"));
      } else if (overlap(best, other) > settings.number("tiou") * together(best, other)) {
        state[i] = dropped;
        votes += other.score;
        right += chance(other.score) * (1 - right);
        // Of the difference to the best score, so that nothing overflows.
        const double weight = std::exp((other.score - best.score) / settings.number("fuse_temperature"));
        weights += weight;
        to_first += weight * (other.first - best.first);
        to_past += weight * (other.past - best.past);
      }
    }
    if (kind == "vote") segments[at].score = votes;
    if (kind == "soft-vote") segments[at].score = right;
    if (kind == "fuse" || kind == "soft-vote") {
      segments[at].first += to_first / weights;
      segments[at].past += to_past / weights;
    }
  }
  std::vector<Segment> result;
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (state[i] == kept) result.push_back(segments[i]);
  return kind == "soft-vote" ? suppressed(std::move(result), settings, "soft") : result;
}

}  // namespace

std::vector<Segment> find_segments(const Outputs& outputs, const Settings& settings) {
  const std::string& profile = settings.text("profile");
  const std::vector<float> y = video_scores(outputs, settings);
  const std::vector<int> classes = chosen_classes(y, settings);
  std::vector<Segment> found;
  for (const int n : classes) {
    Curve c;
    for (long t = 0; t < outputs.snippets; ++t) c.push_back(outputs.class_scores[t * outputs.classes + n]);
    std::vector<Segment> segments;
    if (profile == "paper" || profile == "release") {
      segments = one_threshold(outputs, settings, n, c, y[n]);
    } else if (profile == "multi-threshold") {
      segments = many_thresholds(outputs, settings, n, c, y[n]);
    } else if (profile == "boundaries") {
      const double best = y[classes[0]];
      segments = own_segments(outputs, settings, n, best > 0 ? y[n] / best : 0);
    } else {
      throw std::runtime_error("metadata refineloc.profile: " + profile + " is not known");
    }
    segments = suppressed(std::move(segments), settings, settings.text("suppression"));
    found.insert(found.end(), segments.begin(), segments.end());
  }
  if (!settings.is("min_score", "none")) {
    const auto low = [&](const Segment& segment) { return segment.score < settings.number("min_score"); };
    found.erase(std::remove_if(found.begin(), found.end(), low), found.end());
  }
  std::stable_sort(found.begin(), found.end(), [](const Segment& a, const Segment& b) { return a.score > b.score; });
  const long most = settings.count("max_detections");
  if (most > 0 && static_cast<std::size_t>(most) < found.size()) found.resize(most);
  return found;
}
