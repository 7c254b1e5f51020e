//! Answers with the memory that they hold.

use tonic::Response;

use crate::memory::Answer;

/// An answer that holds memory; the layer around the call sees to it that it does until its last byte has left.
pub(super) fn holding<M>(message: M, memory: Answer) -> Response<M> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(memory);
    response
}
