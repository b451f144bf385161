// The metadata of an ONNX file, which onnxruntime-node does not give: field 14 of the ModelProto message, a list of
// messages of a key (field 1) and a value (field 2). docs/reference/onnx.md says what the keys mean.

const PREFIX = 'refineloc.';

/** Texts by key without "refineloc."; other keys are left out. */
export function readMetadata(bytes) {
  const metadata = {};
  for (const [field, value] of fields(bytes)) {
    if (field === 14) {
      const entry = Object.fromEntries(fields(value));
      const key = entry[1].toString('utf8');
      if (key.startsWith(PREFIX)) metadata[key.slice(PREFIX.length)] = (entry[2] ?? '').toString('utf8');
    }
  }
  return metadata;
}

/** The fields of a protobuf message that hold bytes: pairs of number and value. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const wire = key % 8;
    if (wire === 0) varint();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const length = varint();
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error('not an ONNX file');
  }
}
