// The segments of a video by a refineloc model, in JavaScript: plain ONNX Runtime, no code of refineloc.
//
//     cd examples/javascript && npm install
//     node detect.mjs MODEL.onnx FEATURES.npy FPS [DURATION]
//
// FEATURES.npy: float32 [T, D]. DURATION: of the video, seconds, if known. Prints a JSON object a line, best first:
//     {"label": "Diving", "score": 0.71, "segment": [12.8, 20.5]}

import { readFileSync } from 'node:fs';
import { readMetadata } from './metadata.mjs';
import { findSegments } from './segments.mjs';

// ONNX Runtime from 1.29 on sends usage data unless this is set before it is loaded.
process.env.ORT_DISABLE_TELEMETRY ||= '1';
const { default: ort } = await import('onnxruntime-node');

async function detect(modelPath, featuresPath, fps, duration) {
  const model = readFileSync(modelPath);
  const settings = readMetadata(model);
  if (!['2', '3', '4'].includes(settings.format_version)) {
    throw new Error(`format_version: expected 2 to 4, got ${settings.format_version}`);
  }
  const { data, shape } = readNpy(featuresPath);
  if (shape[0] < 1 || shape[1] !== Number(settings.width)) {
    throw new Error(`${featuresPath}: expected T x ${settings.width} features, got ${shape.join(' x ')}`);
  }

  const session = await ort.InferenceSession.create(model);
  // One video; several go one after another in `features`, with a length each.
  const outputs = await session.run({
    features: new ort.Tensor('float32', data, shape),
    lengths: new ort.Tensor('int64', BigInt64Array.of(BigInt(shape[0])), [1]),
  });
  if (!outputs.video_scores.data.every(Number.isFinite)) throw new Error('the features overflow in the model');

  const window = Number(settings.snippet_frames);
  const stride = Number(settings.stride_frames ?? window);
  const seconds = (snippets) =>
    Math.min(Math.max((snippets * stride + (window - stride) / 2) / fps, 0), duration);
  const classes = JSON.parse(settings.classes);
  for (const { label, first, past, score } of findSegments(outputs, settings)) {
    const segment = [seconds(first), seconds(past)];
    if (segment[0] < segment[1]) console.log(JSON.stringify({ label: classes[label], score, segment }));
  }
}

/** The array [T, D] of a .npy file of little-endian float32 in C order. */
function readNpy(path) {
  const bytes = readFileSync(path);
  if (bytes.length < 10 || bytes[0] !== 0x93) throw new Error(`${path}: not a readable .npy file`);
  const begin = bytes[6] === 1 ? 10 + bytes.readUInt16LE(8) : 12 + bytes.readUInt32LE(8);
  const header = bytes.toString('latin1', 10, begin);
  const shape = header.match(/'shape': \((\d+), (\d+)\)/)?.slice(1).map(Number);
  if (!shape || !header.includes("'<f4'") || !header.includes("'fortran_order': False")) {
    throw new Error(`${path}: expected float32 [T, D] in C order: numpy.save(PATH, features.astype('<f4'))`);
  }
  const end = begin + 4 * shape[0] * shape[1];
  if (bytes.length < end) throw new Error(`${path}: is cut short`);
  const data = new Float32Array(bytes.buffer.slice(bytes.byteOffset + begin, bytes.byteOffset + end));
  if (!data.every(Number.isFinite)) throw new Error(`${path}: holds values that are not finite`);
  return { data, shape };
}

function positive(name, text) {
  const value = Number(text);
  if (!(value > 0 && value < Infinity)) throw new Error(`${name}: expected a number above 0, got ${text}`);
  return value;
}

const [model, features, fps, duration, ...more] = process.argv.slice(2);
if (fps === undefined || more.length) {
  console.error('usage: node detect.mjs MODEL.onnx FEATURES.npy FPS [DURATION]');
  process.exit(2);
}
try {
  const seconds = duration === undefined ? Infinity : positive('DURATION', duration);
  await detect(model, features, positive('FPS', fps), seconds);
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(2);
}
