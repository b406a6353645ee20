//! The adapter as its clients see it.

#[cfg(test)]
mod bodies;
#[cfg(test)]
mod decoy;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod live;
#[cfg(test)]
mod mcp;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod tickets;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod websocket;
