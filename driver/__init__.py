"""flexc: a compiler and an emulator for FlexCiM, a sparse digital compute-in-memory macro."""
