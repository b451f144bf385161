"""The machine a run trains on: device, memory, several processes."""
