//! The status page: what is sent, what its numbers are made of, and what a browser makes of it.

mod browsed;
mod sent;
mod status;
