//! `X-Sdk-Date`: `20200608T023900Z`.

const SECONDS_PER_DAY: i64 = 86_400;

/// Seconds since 1970; `None` for anything that is not such a time.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 16 && text.is_ascii())?;
    let digits = |at: usize, len: usize| {
        let digits = &text[at..at + len];
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    if &text[8..9] != "T" || &text[15..] != "Z" {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(4, 2)?, digits(6, 2)?);
    let (hour, minute, second) = (digits(9, 2)?, digits(11, 2)?, digits(13, 2)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    in_range.then(|| days_before(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

/// Days from 1970 to a day of the Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days_of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between the first of March of the year 0 and 1970.
    days_of_years + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        // As `date -u -d ... +%s` has them.
        let cases = [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20000301T000000Z", 951_868_800),
            ("20200608T023900Z", 1_591_583_940),
            ("20261231T235959Z", 1_798_761_599),
            ("21000301T000000Z", 4_107_542_400),
            ("19691231T235959Z", -1),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse(text.as_bytes()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let wrong = [
            "",
            "20200608T023900",
            "20200608T023900ZZ",
            "20200608 023900Z",
            "20201308T023900Z",
            "20200608T243900Z",
            "20200608T026000Z",
            "20200600T023900Z",
            "+0200608T023900Z",
            "2020-06-08T02:39",
            "2020060８T02Z",
        ];
        for text in wrong {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"\xff0200608T023900Z"), None);
    }
}
