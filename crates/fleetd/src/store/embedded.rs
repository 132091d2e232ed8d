//! One machine without any set-up: the store in one file.
