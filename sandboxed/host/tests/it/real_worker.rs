//! The real launcher and the real worker, built as the node's build script builds them.
