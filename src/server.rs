//! HTTP/1.1 on the Unix socket.
