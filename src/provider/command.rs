//! `command`: a program that prints the JWT.
