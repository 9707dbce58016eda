//! Reads cron expressions and names of zones.

use super::wall::{Fields, Set};
use chrono::NaiveDate;
use chrono_tz::Tz;

/// Why a schedule could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The expression does not have five or six fields.
    #[error("the schedule `{text}` has {count} fields")]
    FieldCount {
        /// The text as written.
        text: String,
        /// The number of fields.
        count: usize,
    },
    /// A field cannot be read.
    #[error("`{part}` cannot be the {field} of a schedule")]
    Field {
        /// The text as written.
        part: String,
        /// The name of the field.
        field: &'static str,
        /// The range of the field in words.
        range: &'static str,
    },
    /// The word after `@` is unknown.
    #[error("`{text}` is not a known schedule")]
    Word {
        /// The text as written.
        text: String,
    },
    /// No time ever fits.
    #[error("the schedule `{text}` never matches any time")]
    Never {
        /// The text as written.
        text: String,
    },
    /// The zone is unknown.
    #[error("`{zone}` is not a known time zone")]
    Zone {
        /// The text as written.
        zone: String,
    },
}

impl ScheduleError {
    /// The field of a `ScheduledBackup` that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Zone { .. } => "spec.timeZone",
            _ => "spec.schedule",
        }
    }

    /// What a person can do, in words.
    pub fn hint(&self) -> String {
        match self {
            Self::FieldCount { .. } => "write 5 fields (minute hour day month weekday), such as `0 2 * * *`, \
                                        or 6 with seconds before them, such as `0 0 2 * * *`"
                .to_owned(),
            Self::Field { range, .. } => {
                format!("{range}; lists `1,2`, ranges `1-5` and steps `*/15` are allowed")
            }
            Self::Word { text } if text.starts_with("@every") => {
                "intervals that count from the start of a program are not supported; write the times, such as \
                 `0 */6 * * *`"
                    .to_owned()
            }
            Self::Word { text } if text.contains("TZ=") => "write the zone into `spec.timeZone`".to_owned(),
            Self::Word { .. } => {
                "the words that can be used are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"
                    .to_owned()
            }
            Self::Never { .. } => "check day and month: no month has that day".to_owned(),
            Self::Zone { .. } => "write its name in the IANA database, such as `Europe/Paris` or `UTC`".to_owned(),
        }
    }
}

/// The name and the range of a field.
struct Field {
    name: &'static str,
    range: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", range: "seconds go from 0 to 59", first: 0, last: 59, names: &[] };
const MINUTE: Field = Field { name: "minute", range: "minutes go from 0 to 59", first: 0, last: 59, names: &[] };
const HOUR: Field = Field { name: "hour", range: "hours go from 0 to 23", first: 0, last: 23, names: &[] };
const DAY_OF_MONTH: Field =
    Field { name: "day of the month", range: "days of a month go from 1 to 31", first: 1, last: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    range: "months go from 1 to 12, or JAN to DEC",
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAY_OF_WEEK: Field = Field {
    name: "day of the week",
    range: "days of a week go from 0 (Sunday) to 7 (Sunday again), or SUN to SAT",
    first: 0,
    last: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// Reads the name of a zone; UTC if there is none.
pub(super) fn zone(name: Option<&str>) -> Result<Tz, ScheduleError> {
    match name {
        None | Some("") => Ok(Tz::UTC),
        Some(name) => name.parse().map_err(|_| ScheduleError::Zone { zone: name.to_owned() }),
    }
}

/// Reads an expression.
pub(super) fn fields(text: &str) -> Result<Fields, ScheduleError> {
    let trimmed = text.trim();
    let words = match trimmed {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') || other.contains("TZ=") => {
            return Err(ScheduleError::Word { text: other.to_owned() });
        }
        other => other,
    };
    let parts: Vec<&str> = words.split_whitespace().collect();
    let (seconds, minutes, hours, days_of_month, months, days_of_week) = match parts.as_slice() {
        [minutes, hours, days, months, week] => ("0", *minutes, *hours, *days, *months, *week),
        [seconds, minutes, hours, days, months, week] => (*seconds, *minutes, *hours, *days, *months, *week),
        other => return Err(ScheduleError::FieldCount { text: trimmed.to_owned(), count: other.len() }),
    };
    let mut week = DAY_OF_WEEK.read(days_of_week)?;
    if week.has(7) {
        week.insert(0);
    }
    let open = |part: &str| part == "*" || part == "?";
    let fields = Fields {
        seconds: SECOND.read(seconds)?,
        minutes: MINUTE.read(minutes)?,
        hours: HOUR.read(hours)?,
        days_of_month: DAY_OF_MONTH.read(days_of_month)?,
        months: MONTH.read(months)?,
        days_of_week: week,
        any_day_of_month: open(days_of_month),
        any_day_of_week: open(days_of_week),
    };
    // Whether any time matches at all: from any day, the first match is within the years that a search covers.
    let comes = NaiveDate::from_ymd_opt(2000, 1, 1).and_then(|date| fields.next_from(date.and_hms_opt(0, 0, 0)?));
    comes.map(|_| fields).ok_or_else(|| ScheduleError::Never { text: trimmed.to_owned() })
}

impl Field {
    fn read(&self, part: &str) -> Result<Set, ScheduleError> {
        let mut set = Set::default();
        for piece in part.split(',') {
            let (first, last, step) = self.piece(piece).ok_or_else(|| ScheduleError::Field {
                part: piece.to_owned(),
                field: self.name,
                range: self.range,
            })?;
            let mut number = first;
            while number <= last {
                set.insert(number);
                number += step;
            }
        }
        Ok(set)
    }

    /// First, last and step of `*`, `3`, `1-5`, also followed by `/2`.
    fn piece(&self, piece: &str) -> Option<(u32, u32, u32)> {
        let (range, step) = match piece.split_once('/') {
            Some((range, step)) => (range, Some(whole(step).filter(|step| (1..=self.last).contains(step))?)),
            None => (piece, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            _ if range == "?" && self.open_by_question_mark() => (self.first, self.last),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            None => {
                let first = self.number(range)?;
                // `5/15` begins at 5 and continues to the end.
                (first, if step.is_some() { self.last } else { first })
            }
        };
        (first <= last).then_some((first, last, step.unwrap_or(1)))
    }

    fn open_by_question_mark(&self) -> bool {
        self.name == DAY_OF_MONTH.name || self.name == DAY_OF_WEEK.name
    }

    fn number(&self, word: &str) -> Option<u32> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(word)) {
            return u32::try_from(at).ok().map(|at| at + self.first);
        }
        whole(word).filter(|number| (self.first..=self.last).contains(number))
    }
}

fn whole(word: &str) -> Option<u32> {
    (!word.is_empty() && word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| word.parse().ok())?
}
