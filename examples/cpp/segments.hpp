// From the outputs of a refineloc model to segments: docs/reference/onnx.md, "From outputs to segments", in C++.
#pragma once

#include <map>
#include <string>
#include <vector>

// The metadata of a model file, by key without "refineloc.". A key that is missing, or a number that is none, throws.
class Settings {
 public:
  explicit Settings(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  bool has(const std::string& key) const { return values_.count(key) != 0; }
  bool is(const std::string& key, const std::string& value) const { return text(key) == value; }
  const std::string& text(const std::string& key) const;
  double number(const std::string& key) const;
  // Thresholds of float32 scores are rounded to float32 once.
  float threshold(const std::string& key) const { return static_cast<float>(number(key)); }
  long count(const std::string& key) const { return static_cast<long>(number(key)); }
  // The items of a JSON list of texts or numbers, each as it stands there: a text with its quotation marks.
  std::vector<std::string> items(const std::string& key) const;

 private:
  std::map<std::string, std::string> values_;
};

// What the model says of one video: T snippets, N classes.
struct Outputs {
  long snippets, classes;
  std::vector<float> class_scores;  // [T, N], row after row, as all below
  std::vector<float> foreground;    // [T]
  std::vector<float> attention;     // [T]
  std::vector<float> video_scores;  // [N]
  std::vector<float> point_scores;  // [points, N]; a student's, else empty
  std::vector<float> distances;     // [points, 2]
};

// Snippets first .. past - 1 of the video. Fractions, where segments were fused or the model found them itself.
struct Segment {
  int label;
  double first, past, score;
};

// The segments of the video, best first.
std::vector<Segment> find_segments(const Outputs& outputs, const Settings& settings);
