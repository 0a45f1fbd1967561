//! `cerebellum serve`, asked over connections of this machine.

#[path = "serve/calls.rs"]
mod calls;
mod common;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/other.rs"]
mod other;
#[path = "serve/server.rs"]
mod server;
#[path = "serve/texts.rs"]
mod texts;
