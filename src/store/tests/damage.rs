//! Nothing that differs from what was saved is ever used, and nothing else suffers.
