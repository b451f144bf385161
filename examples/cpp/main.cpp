// The segments of a video by a refineloc model, in C++: ONNX Runtime and the standard library, no code of refineloc.
//
//     refineloc_detect MODEL.onnx FEATURES.npy FPS [DURATION]
//
// FEATURES.npy: float32 [T, D]. DURATION: of the video, seconds, if known. Prints a JSON object a line, best first:
//     {"label": "Diving", "score": 0.71, "segment": [12.8, 20.5]}

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "segments.hpp"

namespace {

struct Features {
  long snippets, width;
  std::vector<float> values;
};

// A .npy file of little-endian float32 in C order.
Features read_npy(const std::string& path) {
  std::ifstream file(std::filesystem::path(path), std::ios::binary);
  std::array<unsigned char, 12> head{};
  file.read(reinterpret_cast<char*>(head.data()), 10);
  if (!file || head[0] != 0x93) throw std::runtime_error(path + ": not a readable .npy file");
  long length = head[8] | head[9] << 8;
  if (head[6] > 1) {  // versions 2 and 3 have four bytes of length
    file.read(reinterpret_cast<char*>(head.data()) + 10, 2);
    length |= (head[10] | head[11] << 8) << 16;
  }
  std::string header(static_cast<std::size_t>(length), ' ');
  file.read(header.data(), length);
  std::smatch shape;
  if (!std::regex_search(header, shape, std::regex(R"('shape': \((\d+), (\d+)\))")) ||
      header.find("'<f4'") == std::string::npos || header.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + ": expected float32 [T, D] in C order: numpy.save(PATH, features.astype('<f4'))");
  Features features{std::stol(shape[1]), std::stol(shape[2]), {}};
  features.values.resize(static_cast<std::size_t>(features.snippets * features.width));
  file.read(reinterpret_cast<char*>(features.values.data()),
            static_cast<std::streamsize>(features.values.size() * sizeof(float)));
  if (!file) throw std::runtime_error(path + ": is cut short");
  for (const float value : features.values)
    if (!std::isfinite(value)) throw std::runtime_error(path + ": holds values that are not finite");
  return features;
}

Settings read_metadata(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  const Ort::ModelMetadata metadata = session.GetModelMetadata();
  std::map<std::string, std::string> values;
  const std::string prefix = "refineloc.";
  for (const auto& key : metadata.GetCustomMetadataMapKeysAllocated(allocator)) {
    const std::string name = key.get();
    if (name.rfind(prefix, 0) == 0)
      values[name.substr(prefix.size())] = metadata.LookupCustomMetadataMapAllocated(key.get(), allocator).get();
  }
  return Settings(values);
}

std::vector<float> floats(const Ort::Value& value) {
  const float* data = value.GetTensorData<float>();
  return {data, data + value.GetTensorTypeAndShapeInfo().GetElementCount()};
}

Outputs run(Ort::Session& session, Features& features, bool has_points) {
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  // One video. Several go one after another in `features`, with a length each.
  std::array<std::int64_t, 2> shape{features.snippets, features.width};
  std::array<std::int64_t, 1> lengths{features.snippets}, videos{1};
  const std::array<Ort::Value, 2> given{
      Ort::Value::CreateTensor<float>(memory, features.values.data(), features.values.size(), shape.data(), 2),
      Ort::Value::CreateTensor<std::int64_t>(memory, lengths.data(), 1, videos.data(), 1)};
  const std::array<const char*, 2> inputs{"features", "lengths"};
  const std::array<const char*, 6> outputs{"class_scores", "foreground",   "attention",
                                           "video_scores", "point_scores", "distances"};
  const auto values =
      session.Run(Ort::RunOptions(), inputs.data(), given.data(), 2, outputs.data(), has_points ? 6 : 4);
  Outputs found{};
  found.snippets = features.snippets;
  found.class_scores = floats(values[0]);
  found.foreground = floats(values[1]);
  found.attention = floats(values[2]);
  found.video_scores = floats(values[3]);
  found.classes = static_cast<long>(found.video_scores.size());
  if (has_points) {
    found.point_scores = floats(values[4]);
    found.distances = floats(values[5]);
  }
  for (const float value : found.video_scores)
    if (!std::isfinite(value)) throw std::runtime_error("the features overflow in the model");
  return found;
}

// The shortest text that reads as the same number.
std::string text(double value) {
  std::array<char, 32> digits;
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

double positive(const std::string& name, const char* text) {
  char* end;
  const double value = std::strtod(text, &end);
  if (*end || !(value > 0) || !std::isfinite(value))
    throw std::runtime_error(name + ": expected a number above 0, got " + text);
  return value;
}

void detect(int count, char** arguments) {
  const double fps = positive("FPS", arguments[3]);
  const double duration = count > 4 ? positive("DURATION", arguments[4]) : std::numeric_limits<double>::infinity();
  Features features = read_npy(arguments[2]);

  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "refineloc");
  Ort::Session session(environment, std::filesystem::path(arguments[1]).c_str(), Ort::SessionOptions());
  const Settings settings = read_metadata(session);
  const long version = settings.count("format_version");
  if (version < 2 || version > 4)
    throw std::runtime_error("format_version: expected 2 to 4, got " + std::to_string(version));
  if (features.snippets < 1 || features.width != settings.count("width"))
    throw std::runtime_error(std::string(arguments[2]) + ": expected T x " + settings.text("width") +
                             " features, got " + std::to_string(features.snippets) + " x " +
                             std::to_string(features.width));
  const Outputs outputs = run(session, features, settings.is("profile", "boundaries"));

  const double window = settings.number("snippet_frames");
  const double stride = settings.has("stride_frames") ? settings.number("stride_frames") : window;
  const auto seconds = [&](double snippets) {
    return std::min(std::max((snippets * stride + (window - stride) / 2) / fps, 0.0), duration);
  };
  const std::vector<std::string> classes = settings.items("classes");  // as JSON
  for (const Segment& segment : find_segments(outputs, settings)) {
    const double start = seconds(segment.first), end = seconds(segment.past);
    if (start < end)
      std::printf("{\"label\": %s, \"score\": %s, \"segment\": [%s, %s]}\n", classes.at(segment.label).c_str(),
                  text(segment.score).c_str(), text(start).c_str(), text(end).c_str());
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4 || count > 5) {
    std::fprintf(stderr, "usage: refineloc_detect MODEL.onnx FEATURES.npy FPS [DURATION]\n");
    return 2;
  }
  // ONNX Runtime from 1.29 on sends usage data unless this is set before its environment is made.
#ifdef _WIN32
  _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
  try {
    detect(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
