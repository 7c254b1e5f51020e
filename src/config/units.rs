//! Values with units: times, sizes, addresses.

use std::fmt;
use std::time::Duration;

/// A time, written as `500ms`, `25s`, `2m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis if millis % 3_600_000 == 0 && millis > 0 => write!(f, "{}h", millis / 3_600_000),
            millis if millis % 60_000 == 0 && millis > 0 => write!(f, "{}m", millis / 60_000),
            millis if millis % 1000 == 0 => write!(f, "{}s", millis / 1000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

/// A number of bytes, written as `4096`, `512KiB`, `64MiB` or `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Reads a time within bounds.
pub(super) fn time(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Seconds, String> + Clone + Send + Sync {
    move |text| {
        let (number, unit) = number_and_unit(text);
        let millis_per_unit = match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let millis = number.zip(millis_per_unit).and_then(|(number, millis)| number.checked_mul(millis));
        millis
            .map(Duration::from_millis)
            .filter(|value| (min..=max).contains(value))
            .map(Seconds)
            .ok_or_else(|| format!("give a time of {} to {}, in ms, s, m or h", Seconds(min), Seconds(max)))
    }
}

/// Reads a size within bounds.
pub(super) fn bytes(min: usize, max: usize) -> impl Fn(&str) -> Result<ByteSize, String> + Clone + Send + Sync {
    move |text| {
        let (number, unit) = number_and_unit(text);
        let bytes_per_unit = match unit {
            "" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.zip(bytes_per_unit).and_then(|(number, bytes)| number.checked_mul(bytes));
        bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|value| (min..=max).contains(value))
            .map(ByteSize)
            .ok_or_else(|| format!("give {} to {}, such as 4096, 512KiB or 64MiB", ByteSize(min), ByteSize(max)))
    }
}

fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    (number.parse().ok(), unit)
}

/// Reads the URL of a gRPC service.
pub(super) fn upstream(text: &str) -> Result<String, String> {
    let uri: Option<http::Uri> = text.parse().ok();
    uri.filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
    .map(|_| text.to_owned())
    .ok_or_else(|| "give http://HOST:PORT or https://HOST:PORT".to_owned())
}

/// Reads a share.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "give a number of 0 to 1, such as 0.05".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ByteSize, Seconds, bytes, share, time, upstream};

    #[test]
    fn times_are_read_within_their_bounds() {
        let read = time(Duration::from_millis(100), Duration::from_secs(60));
        for (text, millis) in [("100ms", 100), ("1s", 1000), ("1m", 60_000)] {
            assert_eq!(read(text), Ok(Seconds(Duration::from_millis(millis))), "{text}");
            assert_eq!(Seconds(Duration::from_millis(millis)).to_string(), text);
        }
        let hours = time(Duration::ZERO, Duration::from_secs(86_400));
        assert_eq!(hours("24h").map(|time| time.to_string()), Ok("24h".to_owned()));
        for text in ["", "1", "99ms", "61s", "-1s", "1.5s", "s", "99999999999999999999s", "18446744073709551615m"] {
            assert_eq!(read(text), Err("give a time of 100ms to 1m, in ms, s, m or h".to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_within_their_bounds() {
        let read = bytes(1024, 1 << 30);
        for (text, count) in [("1025", 1025), ("1KiB", 1024), ("64MiB", 64 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(read(text), Ok(ByteSize(count)), "{text}");
            assert_eq!(ByteSize(count).to_string(), text);
        }
        for text in ["", "1023", "2GiB", "-1", "1MB", "18446744073709551615GiB"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        for (text, expected) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert_eq!(share(text), Ok(expected));
        }
        for text in ["", "-0.1", "1.01", "NaN", "inf", "50%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_upstream_is_an_http_url() {
        for text in ["http://dms:50051", "https://dms:50051"] {
            assert_eq!(upstream(text), Ok(text.to_owned()));
        }
        for text in ["", "dms:50051", "ftp://dms", "http://", "http://a b"] {
            assert!(upstream(text).is_err(), "{text}");
        }
    }
}
