//! Numbers with units: durations and sizes.

/// A kind of quantity.
#[derive(Debug)]
pub(super) struct Units {
    /// With its article.
    pub(super) name: &'static str,
    /// A value that is right.
    pub(super) example: &'static str,
    units: &'static [Unit],
}

#[derive(Debug)]
struct Unit {
    name: &'static str,
    factor: u64,
    /// Words that begin like this, in any case, are meant to be it.
    meant: &'static str,
}

const fn unit(name: &'static str, factor: u64, meant: &'static str) -> Unit {
    Unit { name, factor, meant }
}

/// In milliseconds.
pub(super) const DURATION: Units = Units {
    name: "a duration",
    example: "300s",
    units: &[
        unit("ms", 1, "ms"),
        unit("s", 1_000, "s"),
        unit("m", 60_000, "m"),
        unit("h", 3_600_000, "h"),
        unit("d", 86_400_000, "d"),
    ],
};

/// In bytes.
pub(super) const SIZE: Units = Units {
    name: "a size",
    example: "12GiB",
    units: &[
        unit("B", 1, "b"),
        unit("KiB", 1 << 10, "k"),
        unit("MiB", 1 << 20, "m"),
        unit("GiB", 1 << 30, "g"),
        unit("TiB", 1 << 40, "t"),
    ],
};

impl Units {
    /// Reads a whole number and its unit; fails with what was probably meant.
    pub(super) fn read(&self, text: &str) -> Result<u64, Option<String>> {
        let (number, name) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        if number.is_empty() {
            return Err(None);
        }
        let Some(unit) = self.units.iter().find(|unit| unit.name == name) else {
            return Err(self.meant(name.trim()).map(|unit| format!("{number}{unit}")));
        };
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit.factor)).ok_or(None)
    }

    fn meant(&self, name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return Some(self.example.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        let name = name.to_ascii_lowercase();
        let like = self.units.iter().filter(|unit| name.starts_with(unit.meant));
        like.max_by_key(|unit| unit.meant.len()).map(|unit| unit.name)
    }

    /// Writes a value with the largest unit that it is a whole number of.
    pub(super) fn write(&self, value: u64) -> String {
        let whole = self.units.iter().rev().find(|unit| value.is_multiple_of(unit.factor));
        whole.map_or_else(String::new, |unit| format!("{}{}", value / unit.factor, unit.name))
    }

    /// `ms, s, m, h or d`
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.units.iter().map(|unit| unit.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_are_read_and_written() {
        for (text, value) in [("1ms", 1), ("300s", 300_000), ("5m", 300_000), ("2h", 7_200_000), ("0d", 0)] {
            assert_eq!(DURATION.read(text), Ok(value), "{text}");
        }
        for (text, value) in [("7B", 7), ("1KiB", 1024), ("12GiB", 12 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(SIZE.read(text), Ok(value), "{text}");
            assert_eq!(SIZE.write(value), text);
        }
        assert_eq!(DURATION.write(300_000), "5m");
    }

    #[test]
    fn what_was_meant_is_guessed_from_the_unit() {
        let meant = |units: &Units, text| units.read(text).unwrap_err().unwrap_or_default();
        for (text, right) in [
            ("300", "300s"),
            ("300 s", "300s"),
            ("5min", "5m"),
            ("5 Minutes", "5m"),
            ("20msec", "20ms"),
            ("1hour", "1h"),
            ("1.5h", ""),
            ("soon", ""),
            ("-3s", ""),
            ("", ""),
            ("99999999999999999999s", ""),
        ] {
            assert_eq!(meant(&DURATION, text), right, "{text}");
        }
        for (text, right) in
            [("12", "12GiB"), ("12GB", "12GiB"), ("512mb", "512MiB"), ("1kib", "1KiB"), ("4XB", "")]
        {
            assert_eq!(meant(&SIZE, text), right, "{text}");
        }
    }
}
