//! All of the tests in this folder that need no program of their own: one program is built much sooner than one for each file.
#![allow(missing_docs)]

mod common;

mod corestore;
mod edges;
mod extensions;
mod greeting;
mod hostile;
mod middle;
mod misuse;
mod order;
mod roots;
mod session;
mod strangers;
mod values;
mod vectors;
