// Video scores of a refineloc model in JavaScript: plain ONNX Runtime, no code of refineloc.
//
//     cd examples/javascript && npm install
//     node scores.mjs model.onnx features.npy
//
// features.npy: float32 [T, D]. Prints one JSON object: classes, and their scores ŷ for the video.

import { readFileSync } from 'node:fs';
import { readMetadata } from './metadata.mjs';

// ONNX Runtime from 1.29 on sends usage data unless this is set before it is loaded.
process.env.ORT_DISABLE_TELEMETRY ||= '1';
const { default: ort } = await import('onnxruntime-node');

const [modelPath, featuresPath] = process.argv.slice(2);
if (!featuresPath) {
  console.error('usage: node scores.mjs model.onnx features.npy');
  process.exit(2);
}
const model = readFileSync(modelPath);
const metadata = readMetadata(model);
const { data, shape } = readNpy(readFileSync(featuresPath));
if (shape.length !== 2 || shape[1] !== Number(metadata['refineloc.width'])) {
  console.error(`error: ${featuresPath}: expected T x ${metadata['refineloc.width']} features, got ${shape.join(' x ')}`);
  process.exit(2);
}

const session = await ort.InferenceSession.create(model);
// One video; several go one after another in `features`, with a length each.
const outputs = await session.run({
  features: new ort.Tensor('float32', data, shape),
  lengths: new ort.Tensor('int64', BigInt64Array.of(BigInt(shape[0])), [1]),
});
console.log(JSON.stringify({
  classes: JSON.parse(metadata['refineloc.classes']),
  video_scores: Array.from(outputs.video_scores.data),
}));

/** The array of a .npy file of little-endian float32 in C order. */
function readNpy(bytes) {
  const version = bytes[6];
  const length = version === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const begin = (version === 1 ? 10 : 12) + length;
  const header = bytes.toString('latin1', 10, begin);
  if (!header.includes("'<f4'") || !header.includes("'fortran_order': False")) {
    throw new Error('expected float32 in C order: numpy.save(path, features.astype("float32"))');
  }
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(',').filter((part) => part.trim()).map(Number);
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset + begin, bytes.byteOffset + bytes.length));
  return { data: numbers, shape };
}
