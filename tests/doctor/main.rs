//! `wandb-cred doctor` against planted faults: each is named at its own step, with its remedy, and nothing else is
//! called wrong; and no false alarm on a healthy set-up of each kind.

mod advice;
mod daemon;
mod faults;
mod healthy;
mod people;
mod stand_in;
mod world;
