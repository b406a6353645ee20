//! The SSH handler against russh's client over in-memory connections, and against OpenSSH's
//! over a socket.

mod flow;
mod login;
mod node;
mod openssh;
mod sessions;
