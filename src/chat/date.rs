//! The date that a template may ask for.

use alloc::string::{String, ToString};

use crate::clock::unix_seconds;

/// A day of the calendar, which templates write into system messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From the first day of 1970 on, which was a Thursday.
const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

impl Date {
    /// A day of the years 1970 to 9999; `None` if there is no such day.
    pub fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let exists = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day);
        exists.then_some(Self { year, month, day })
    }

    /// Today by the system's clock, in UTC.
    pub fn today() -> Self {
        Self::after(u32::try_from(unix_seconds() / 86400).unwrap_or(0))
    }

    /// So many days after the first day of 1970.
    fn after(mut days: u32) -> Self {
        let mut year = 1970;
        while days >= days_of(year) {
            days -= days_of(year);
            year += 1;
        }
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        Self { year, month, day: days + 1 }
    }

    /// The day in the form `2025-01-31`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-').map(str::parse);
        let mut next = || parts.next()?.ok();
        Self::new(next()?, next()?, next()?)
    }

    /// The day in a format of C's `strftime`; times of the day are those of midnight. `None` if the format
    /// asks for something else.
    pub fn format(self, format: &str) -> Option<String> {
        let Self { year, month, day } = self;
        let (name, weekday) = (MONTHS[month as usize - 1], self.weekday());
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let mut code = chars.next()?;
            let padded = code != '-';
            if !padded {
                code = chars.next()?;
            }
            let number = |n: u32| if padded { format!("{n:02}") } else { n.to_string() };
            match code {
                'Y' => text += &year.to_string(),
                'y' => text += &number(year % 100),
                'm' => text += &number(month),
                'd' => text += &number(day),
                'e' => text += &format!("{day:2}"),
                'B' => text += name,
                'b' | 'h' => text += &name[..3],
                'A' => text += weekday,
                'a' => text += &weekday[..3],
                'F' => text += &format!("{year}-{month:02}-{day:02}"),
                'H' | 'M' | 'S' => text += &number(0),
                'I' => text += &number(12),
                'p' => text += "AM",
                '%' => text.push('%'),
                _ => return None,
            }
        }
        Some(text)
    }

    fn weekday(self) -> &'static str {
        let years: u32 = (1970..self.year).map(days_of).sum();
        let months: u32 = (1..self.month).map(|month| days_in(self.year, month)).sum();
        WEEKDAYS[((years + months + self.day - 1) % 7) as usize]
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u32) -> u32 {
    365 + u32::from(is_leap(year))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_formatted_as_strftime_does() {
        let day = Date::new(2024, 7, 6).unwrap();
        for (format, text) in [
            ("%d %b %Y", "06 Jul 2024"),
            ("%B %d, %Y", "July 06, 2024"),
            ("%-d.%-m.%y, %A (%a)", "6.7.24, Saturday (Sat)"),
            ("%F %H:%M:%S %e 100%%", "2024-07-06 00:00:00  6 100%"),
        ] {
            assert_eq!(day.format(format).as_deref(), Some(text));
        }
        assert_eq!((day.format("%Q"), day.format("%")), (None, None));
    }

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(Date::after(0), Date::new(1970, 1, 1).unwrap());
        assert_eq!(Date::after(19_782), Date::new(2024, 2, 29).unwrap());
        assert_eq!(Date::after(20_057), Date::new(2024, 11, 30).unwrap());
        assert_eq!(Date::new(2024, 2, 29).unwrap().weekday(), "Thursday");
        for wrong in ["2023-02-29", "2024-13-01", "1969-12-31", "2024-1", "x-1-1", "2024-06-31"] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Date::parse("2024-02-29"), Date::new(2024, 2, 29));
    }
}
