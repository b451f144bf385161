// From the outputs of a refineloc model to segments: docs/reference/onnx.md, "From outputs to segments", in JavaScript.
//
// Scores are float32, and thresholds are rounded to it (Math.fround). Sums are float64, as all numbers are here.

const { fround } = Math;

/**
 * The segments of one video, best first: {label, first, past, score}. They cover the snippets first .. past - 1, which
 * are fractions where segments were fused or the model found them itself.
 *
 * @param outputs of one call of the model, with one video
 * @param settings the model file's metadata, texts by key
 */
export function findSegments(outputs, settings) {
  const [snippets, count] = outputs.class_scores.dims;
  const values = Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  const video = { ...values, snippets, count };
  const find = FINDERS[settings.profile];
  if (!find) throw new Error(`metadata refineloc.profile: ${settings.profile} is not known`);

  const y = videoScores(video, settings);
  const classes = chosenClasses(y, settings);
  let found = [];
  for (const label of classes) {
    const c = Float32Array.from({ length: snippets }, (_, t) => video.class_scores[t * count + label]);
    const segments = find(video, settings, { label, c, y: y[label], best: y[classes[0]] });
    found.push(...suppressed(segments.map((segment) => ({ label, ...segment })), settings, settings.suppression));
  }
  if (settings.min_score !== 'none') found = found.filter(({ score }) => score >= Number(settings.min_score));
  found.sort((a, b) => b.score - a.score); // stable
  return Number(settings.max_detections) ? found.slice(0, Number(settings.max_detections)) : found;
}

const FINDERS = {
  paper: oneThreshold,
  release: oneThreshold,
  'multi-threshold': manyThresholds,
  boundaries: ownSegments,
};

/** ŷ by which classes are chosen: the model's, or the mean class scores where the foreground is highest. */
function videoScores({ snippets, count, class_scores, foreground, video_scores }, settings) {
  const share = Number(settings.video_share ?? 0);
  if (!share) return video_scores;
  const order = Array.from({ length: snippets }, (_, t) => t).sort((a, b) => foreground[b] - foreground[a]);
  const highest = order.slice(0, Math.ceil(share * snippets)).sort((a, b) => a - b);
  return Float32Array.from(
    { length: count },
    (_, n) => highest.reduce((sum, t) => sum + class_scores[t * count + n], 0) / highest.length,
  );
}

/** The classes of the largest ŷ, best first; of equal ones the lower index. */
function chosenClasses(y, settings) {
  const ranked = Array.from(y.keys()).sort((a, b) => y[b] - y[a]);
  const least = fround(fround(settings.class_threshold ?? 0) * y[ranked[0]]);
  return ranked.slice(0, Number(settings.top_k)).filter((n) => !('class_threshold' in settings) || y[n] >= least);
}

/** Profiles `paper` and `release`: one threshold on the foreground, one on the class. */
function oneThreshold({ snippets, foreground, attention }, settings, { c, y }) {
  const release = settings.profile === 'release';
  const leastForeground = fround(1 - settings.alpha_a);
  const leastClass = fround(settings.alpha_c);
  const kept = (t) =>
    release
      ? foreground[t] > leastForeground && c[t] > leastClass
      : foreground[t] >= leastForeground && c[t] >= leastClass;
  const dilated = (t) => kept(t) || (t > 0 && kept(t - 1)) || (t + 1 < snippets && kept(t + 1));
  const found = release ? runs(snippets, 0, dilated) : runs(snippets, Number(settings.max_gap), kept);
  return found.map((run) => ({
    ...widened(run, settings, snippets),
    score: mean(c, run) + mean(release ? foreground : attention, run) + y,
  }));
}

/** Profile `multi-threshold`: the runs of normalised curves above each of many thresholds. */
function manyThresholds({ snippets, foreground }, settings, { c, y }) {
  const x = normalised(c);
  const curves = [];
  if (settings.curve !== 'foreground') curves.push(x);
  if (settings.curve !== 'class') curves.push(normalised(foreground));
  const found = new Map(); // a run that is found several times is one
  for (const threshold of JSON.parse(settings.thresholds).map(fround)) {
    for (const curve of curves) {
      for (const run of runs(snippets, Number(settings.max_gap), (t) => curve[t] > threshold)) {
        found.set(`${run.first} ${run.past}`, run);
      }
    }
  }
  const ordered = [...found.values()].sort((a, b) => a.first - b.first || a.past - b.past);

  const byContrast = settings.scoring === 'contrast';
  const scored = settings.scored_on === 'product' ? c.map((value, t) => foreground[t] * value) : byContrast ? x : c;
  const sums = [0];
  for (const value of scored) sums.push(sums.at(-1) + value);
  return ordered.map((run) => {
    const inside = byContrast
      ? contrast(sums, run, Number(settings.outer))
      : scored.subarray(run.first, run.past).reduce((a, b) => Math.max(a, b));
    const own = inside * (run.past - run.first) ** Number(settings.length_power);
    const score = settings.video_term === 'multiply' ? Math.max(own, 0) * y : own + Number(settings.video_weight) * y;
    return { ...widened(run, settings, snippets), score };
  });
}

/** Profile `boundaries`: a student's own segments, one for each of its points. */
function ownSegments({ snippets, count, point_scores, distances }, settings, { label, y, best }) {
  const share = best > 0 ? y / best : 0;
  const found = [];
  const points = distances.length / 2;
  for (let point = 0, step = 1; point < points; step *= 2) { // a level has a point every `step` snippets
    for (let t = 0; t < snippets && point < points; t += step, point += 1) {
      const first = Math.max(t + 0.5 - distances[2 * point], 0);
      const past = Math.min(t + 0.5 + distances[2 * point + 1], snippets);
      const score = point_scores[point * count + label] * share;
      if (score >= Number(settings.point_score) && first < past) found.push({ first, past, score });
    }
  }
  return found;
}

/** The runs of snippets that are kept. At most `maxGap` removed snippets lie between two that are joined. */
function runs(snippets, maxGap, kept) {
  const found = [];
  for (let t = 0; t < snippets; t += 1) {
    if (!kept(t)) continue;
    const last = found.at(-1);
    if (last && t - last.past <= maxGap) last.past = t + 1;
    else found.push({ first: t, past: t + 1 });
  }
  return found;
}

function widened({ first, past }, settings, snippets) {
  const widen = Number(settings.widen);
  return { first: Math.max(first - widen, 0), past: Math.min(past + widen, snippets) };
}

function mean(curve, { first, past }) {
  return curve.subarray(first, past).reduce((sum, value) => sum + value, 0) / (past - first);
}

/** In float32, which storing in a Float32Array rounds to; the difference and the division are rounded one by one. */
function normalised(curve) {
  const least = curve.reduce((a, b) => Math.min(a, b));
  const span = fround(curve.reduce((a, b) => Math.max(a, b)) - least);
  return curve.map((value) => (span > 0 ? fround(value - least) / span : 0));
}

/** The mean over the run, less the mean over the ring around it: differences of sums from the first snippet on. */
function contrast(sums, { first, past }, outer) {
  const length = past - first;
  const ring = Math.ceil(outer * length);
  const left = Math.max(first - ring, 0);
  const right = Math.min(past + ring, sums.length - 1);
  const inside = (sums[past] - sums[first]) / length;
  const around = right - left - length;
  return around ? inside - (sums[first] - sums[left] + (sums[right] - sums[past])) / around : inside;
}

const overlap = (a, b) => Math.min(a.past, b.past) - Math.max(a.first, b.first);
const together = (a, b) => a.past - a.first + (b.past - b.first) - overlap(a, b);

const chance = (score) => Math.min(Math.max(score, 0), 1);

/** What is left of the segments of one class where they overlap, in their order. */
function suppressed(segments, settings, kind) {
  if (kind === 'none') return segments;
  let left = segments.filter(({ score }) => !kind.startsWith('soft') || score >= 0);
  const order = new Map(left.map((segment, index) => [segment, index]));
  const kept = [];
  while (left.length) {
    const best = left.reduce((a, b) => (b.score > a.score ? b : a)); // of equal ones the earlier
    left = left.filter((other) => other !== best);
    kept.push(best);
    if (kind === 'soft') {
      for (const other of left) {
        const tiou = Math.max(overlap(best, other), 0) / together(best, other);
        other.score *= Math.exp(-(tiou * tiou) / Number(settings.soft_sigma));
      }
      continue;
    }
    const near = left.filter((other) => overlap(best, other) > Number(settings.tiou) * together(best, other));
    left = left.filter((other) => !near.includes(other));
    if (kind === 'vote') best.score = near.reduce((sum, other) => sum + other.score, best.score);
    if (kind === 'fuse' || kind === 'soft-vote') {
      // Of the differences to the best score, so that nothing overflows.
      const weights = near.map((other) => Math.exp((other.score - best.score) / Number(settings.fuse_temperature)));
      const total = weights.reduce((sum, weight) => sum + weight, 1);
      const { first, past } = best;
      best.first += near.reduce((sum, other, i) => sum + weights[i] * (other.first - first), 0) / total;
      best.past += near.reduce((sum, other, i) => sum + weights[i] * (other.past - past), 0) / total;
    }
    if (kind === 'soft-vote') {
      best.score = near.reduce((right, other) => right + chance(other.score) * (1 - right), chance(best.score));
    }
  }
  kept.sort((a, b) => order.get(a) - order.get(b));
  return kind === 'soft-vote' ? suppressed(kept, settings, 'soft') : kept;
}
