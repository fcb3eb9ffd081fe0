//! Runs the built daemon and command against the built sandbox, on sockets of their own, and proves what the
//! README promises: under storms, outages, hostile clients, kills, bad input, reloads; and that nothing leaks.
//!
//! Every wait is a poll with a deadline. `WANDB_CRED_TEST_LONG=1` makes the random tests longer.

mod advice;
mod audit;
mod bad_input;
mod certificates;
mod clock;
mod exporters;
mod feed;
mod foreign;
mod hostile;
mod kill;
mod leaks;
mod loopback_proxy;
mod netrc;
mod odd_machine;
mod on_demand;
mod outage;
mod own;
mod plain_http;
mod proxy;
mod reload;
mod restart;
mod rotation;
mod setup;
mod several;
mod storm;
mod talk;
mod threads;
mod upstream;
mod wakeups;
