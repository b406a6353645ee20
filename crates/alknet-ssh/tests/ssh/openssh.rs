//! Real OpenSSH.
