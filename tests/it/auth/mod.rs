//! Who may call, and what each of them may do.

mod foreign_projects;
mod jwt;
mod logs;
mod roles;
mod signatures;
mod sources;
mod start;
mod tokens;
