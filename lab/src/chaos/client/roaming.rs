//! A client that turns to another replica when one does not answer.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Caller, GrpcCaller, RestCaller};

/// Which of the two APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// gRPC.
    Grpc,
    /// The REST gateway.
    Rest,
}

impl Door {
    /// Both in turns.
    pub(crate) fn of(number: usize) -> Self {
        if number.is_multiple_of(2) { Door::Grpc } else { Door::Rest }
    }
}

/// Where clients reach one replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors {
    /// gRPC.
    pub grpc: SocketAddr,
    /// The REST gateway.
    pub rest: SocketAddr,
}

/// A client of one replica at a time.
#[derive(Debug)]
pub(crate) struct Roaming {
    replicas: Arc<[Doors]>,
    door: Door,
    replica: usize,
    /// The present one.
    pub caller: Caller,
}

impl Roaming {
    /// Begins at a replica.
    pub(crate) fn new(replicas: Arc<[Doors]>, door: Door, replica: usize) -> Self {
        let replica = replica % replicas.len();
        let caller = connect(&replicas, door, replica);
        Self { replicas, door, replica, caller }
    }

    /// Turns to the next replica; its own again when there is but one. The connection ends.
    pub(crate) fn turn(&mut self) {
        self.replica = (self.replica + 1) % self.replicas.len();
        self.caller = self.another();
    }

    /// Another connection to the same replica.
    pub(crate) fn another(&self) -> Caller {
        connect(&self.replicas, self.door, self.replica)
    }
}

fn connect(replicas: &[Doors], door: Door, replica: usize) -> Caller {
    let doors = replicas[replica];
    match door {
        Door::Grpc => Caller::Grpc(Box::new(GrpcCaller::new(doors.grpc))),
        Door::Rest => Caller::Rest(RestCaller::new(doors.rest)),
    }
}
