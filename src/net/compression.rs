//! Compressed bytes of requests and answers. What comes out of a compressed request counts as what arrives does: it has a limit, and
//! memory is reserved before it is there, so a few bytes cannot make the process hold many.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::domain::Error;
use crate::memory::Arrival;

/// A buffer for what comes out has this size at first, or four times that of what went in.
const BUFFER_BYTES_MIN: usize = 4 * 1024;
/// The window of zstd levels up to 19. A frame that wants more would have more allocated than any request may have bytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How bytes may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Why compressed bytes were refused.
#[derive(Debug)]
pub enum Refused {
    /// More than the limit would come out.
    TooLarge,
    /// They are not of this encoding, or end too early.
    Malformed(io::Error),
    /// There is no memory for what comes out.
    NoMemory(Error),
}

impl Encoding {
    /// As headers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What comes out of compressed bytes, at most `limit`. Memory is reserved for it `copies` times.
    pub(crate) fn decompress(
        self,
        compressed: &[u8],
        limit: usize,
        arrival: &Arrival,
        copies: usize,
    ) -> Result<Bytes, Refused> {
        let reserve = |bytes: usize| arrival.grow(copies * bytes).map_err(Refused::NoMemory);
        match self {
            Self::Gzip => read(MultiGzDecoder::new(compressed), compressed.len(), limit, reserve),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(Refused::Malformed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Refused::Malformed)?;
                read(decoder, compressed.len(), limit, reserve)
            }
        }
    }

    /// The bytes compressed, in little time rather than to the least size, behind `head`.
    ///
    /// # Errors
    /// When memory for it cannot be allocated.
    pub fn compress(self, bytes: &[u8], head: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(head, flate2::Compression::fast());
                io::Write::write_all(&mut encoder, bytes)?;
                encoder.finish()
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(head, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
                io::Write::write_all(&mut encoder, bytes)?;
                encoder.finish()
            }
        }
    }
}

/// Reads to the end, at most `limit` bytes. Each buffer is reserved before it is allocated.
fn read(
    mut decoder: impl Read,
    compressed: usize,
    limit: usize,
    reserve: impl Fn(usize) -> Result<(), Refused>,
) -> Result<Bytes, Refused> {
    let mut buffer = Vec::new();
    let mut wanted = compressed.saturating_mul(4).max(BUFFER_BYTES_MIN);
    loop {
        // One more than the limit shows that there is more.
        wanted = wanted.min(limit + 1);
        let room = wanted - buffer.len();
        if room == 0 {
            return Err(Refused::TooLarge);
        }
        reserve(wanted - buffer.capacity().min(wanted))?;
        buffer.reserve_exact(room);
        let read = (&mut decoder).take(room as u64).read_to_end(&mut buffer).map_err(Refused::Malformed)?;
        if read < room {
            return Ok(buffer.into());
        }
        wanted = wanted.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, Use};

    const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    fn arrival() -> (Memory, Arrival) {
        let memory = Memory::of_gateway(1 << 27).unwrap();
        let arrival = Arrival::new(&memory, None);
        (memory, arrival)
    }

    fn reserved(memory: &Memory) -> usize {
        memory.part(Use::SmallRequests).reserved() + memory.part(Use::LargeRequests).reserved()
    }

    #[test]
    fn what_went_in_comes_out() {
        let limit = 300_000;
        for encoding in BOTH {
            for size in [0, 1, 4_095, 4_096, 4_097, 100_000, limit] {
                let bytes: Vec<u8> = (0..size).map(|n| (n * n % 251) as u8).collect();
                let compressed = encoding.compress(&bytes, Vec::new()).unwrap();
                assert_eq!(encoding.decompress(&compressed, limit, &arrival().1, 1).unwrap(), bytes, "{size}");
                let behind = encoding.compress(&bytes, b"head".to_vec()).unwrap();
                assert!(behind.starts_with(b"head") && behind[4..] == compressed);
            }
        }
    }

    #[test]
    fn a_bomb_holds_no_more_than_the_limit() {
        let limit = 1 << 20;
        for encoding in BOTH {
            let bomb = encoding.compress(&vec![0; 8 << 20], Vec::new()).unwrap();
            let (memory, arrival) = arrival();
            let refused = encoding.decompress(&bomb, limit, &arrival, 1).unwrap_err();
            assert!(matches!(refused, Refused::TooLarge), "{refused:?}");
            assert!(reserved(&memory) <= limit + 1);
            let just = encoding.compress(&vec![0; limit + 1], Vec::new()).unwrap();
            assert!(matches!(encoding.decompress(&just, limit, &arrival, 1), Err(Refused::TooLarge)));
        }
    }

    #[test]
    fn memory_is_reserved_before_it_is_there() {
        for encoding in BOTH {
            let memory = Memory::of_gateway(1 << 27).unwrap();
            let all = memory.part(Use::LargeRequests).reservation(None);
            while all.grow(1 << 16).is_ok() {}
            let compressed = encoding.compress(&vec![0; 1 << 20], Vec::new()).unwrap();
            let refused = encoding.decompress(&compressed, 1 << 20, &Arrival::new(&memory, None), 2).unwrap_err();
            assert!(matches!(refused, Refused::NoMemory(_)), "{refused:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_is_malformed() {
        for encoding in BOTH {
            let whole = encoding.compress(&[7; 10_000], Vec::new()).unwrap();
            let mut spoilt = whole.clone();
            spoilt.push(b'x');
            let cut = (0..whole.len()).map(|end| whole[..end].to_vec());
            // No frame at all is a whole stream of zstd.
            for bytes in cut.filter(|cut| !cut.is_empty()).chain([spoilt, b"{}".to_vec()]) {
                let refused = encoding.decompress(&bytes, 20_000, &arrival().1, 1).unwrap_err();
                assert!(matches!(refused, Refused::Malformed(_)), "{encoding:?} {}: {refused:?}", bytes.len());
            }
        }
    }

    #[test]
    fn a_frame_that_wants_a_large_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        io::Write::write_all(&mut encoder, &[1; 100]).unwrap();
        let frame = encoder.finish().unwrap();
        let refused = Encoding::Zstd.decompress(&frame, 1000, &arrival().1, 1).unwrap_err();
        assert!(matches!(refused, Refused::Malformed(_)), "{refused:?}");
    }
}
