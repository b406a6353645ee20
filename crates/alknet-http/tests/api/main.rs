//! Operations over plain HTTP.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod described;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hidden;
#[cfg(test)]
mod import;
#[cfg(test)]
mod streams;
