"""Reading ONNX models: files in, a clean static graph out, and which nodes are linears."""
