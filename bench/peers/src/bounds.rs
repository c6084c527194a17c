//! What is to be reached, as data: how `shm:` compares with bare memory and with other libraries.

use crate::contender::{
    FUTEX, HAND_OVER, LINE, SHM_MANY, SHM_MANY_WIDE, SHM_SERVICE, SHM_TOPIC, STREAM, TONIC,
};
use crate::job::{Case, Manner, Measure};
use crate::rounds::Row;

/// Whose figures are bound: the row of the table that carries messages through `shm:`.
pub(crate) const SUBJECT: &str = SHM_TOPIC;
/// Whose round trips are bound.
const SERVICE: &str = SHM_SERVICE;
const ICEORYX_REQUEST: &str = "iceoryx2 request";

const ICEORYX: &str = "iceoryx2";
const CROSSBAR: &str = "crossbar";

/// With what the subject's figure is compared.
#[derive(Clone, Copy)]
enum Against {
    /// The same case of another one.
    Contender(&'static str),
    /// Its own, with one subscriber.
    OneSubscriber,
    /// Nothing: the figure itself.
    Nothing,
}

#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// No worse than the slowest round of the other one, over its median.
    OwnSpread,
}

struct Bound {
    /// Whose figure is bound.
    of: &'static str,
    measure: Measure,
    applies: fn(&Case) -> bool,
    against: Against,
    limit: Limit,
}

const TABLE: &[Bound] = &[
    latency(|case| case.bytes == 8, LINE, 1.15),
    latency(|case| (64..=8192).contains(&case.bytes), HAND_OVER, 1.15),
    latency(|case| case.manner == Manner::Untouched, HAND_OVER, 1.15),
    latency(|case| case.bytes <= 64, ICEORYX, 1.0 / 5.0),
    latency(|case| case.bytes <= 64, CROSSBAR, 1.0 / 2.0),
    latency(|case| case.bytes > 64, ICEORYX, 1.0),
    latency(|case| case.bytes > 64, CROSSBAR, 1.0),
    call(LINE, 1.5),
    call(ICEORYX_REQUEST, 1.0 / 4.0),
    call(TONIC, 1.0 / 100.0),
    Bound {
        of: SHM_MANY_WIDE,
        measure: Measure::Stream,
        applies: |case| case.bytes == 64,
        against: Against::Contender(ICEORYX),
        limit: Limit::AtLeast(20.0),
    },
    Bound {
        of: SHM_MANY,
        measure: Measure::Stream,
        applies: |case| case.bytes == 64,
        against: Against::Nothing,
        limit: Limit::AtLeast(40e6),
    },
    Bound {
        of: SUBJECT,
        measure: Measure::Stream,
        applies: |case| case.manner == Manner::InPlace,
        against: Against::Contender(STREAM),
        limit: Limit::AtLeast(0.95),
    },
    Bound {
        of: SUBJECT,
        measure: Measure::Publish,
        applies: |case| case.subscribers == 32,
        against: Against::OneSubscriber,
        limit: Limit::AtMost(1.2),
    },
    Bound {
        of: SUBJECT,
        measure: Measure::Sleep,
        applies: |case| case.same_core,
        against: Against::Contender(FUTEX),
        limit: Limit::AtMost(1.15),
    },
    Bound {
        of: SUBJECT,
        measure: Measure::Sleep,
        applies: |case| !case.same_core,
        against: Against::Contender(FUTEX),
        limit: Limit::OwnSpread,
    },
    Bound {
        of: SUBJECT,
        measure: Measure::Open,
        applies: |_| true,
        against: Against::Nothing,
        limit: Limit::AtMost(1000.0),
    },
];

const fn latency(applies: fn(&Case) -> bool, other: &'static str, at_most: f64) -> Bound {
    Bound {
        of: SUBJECT,
        measure: Measure::Latency,
        applies,
        against: Against::Contender(other),
        limit: Limit::AtMost(at_most),
    }
}

const fn call(other: &'static str, at_most: f64) -> Bound {
    let bound = latency(|_| true, other, at_most);
    Bound { of: SERVICE, measure: Measure::Service, ..bound }
}

/// What came of a bound.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What is compared: `latency 8 B, against bare line`.
    pub(crate) what: String,
    /// What was found; `None` where one of the two was not measured.
    pub(crate) found: Option<f64>,
    /// `at most 1.15`
    pub(crate) wanted: String,
    pub(crate) kept: Option<bool>,
}

/// All bounds that concern what was measured; none if the subject was not.
pub(crate) fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for row in rows {
        let bounds = TABLE.iter().filter(|bound| {
            bound.of == row.contender.name
                && bound.measure == row.case.measure
                && (bound.applies)(&row.case)
        });
        verdicts.extend(bounds.map(|bound| verdict(bound, row, rows)));
    }
    verdicts
}

fn verdict(bound: &Bound, row: &Row, rows: &[Row]) -> Verdict {
    let figure = row.case.measure.figure();
    let other = match bound.against {
        Against::Nothing => None,
        Against::Contender(name) => {
            rows.iter().find(|other| other.case == row.case && other.contender.name == name)
        }
        Against::OneSubscriber => rows.iter().find(|other| {
            let one = Case { subscribers: 1, ..row.case };
            other.case == one && other.contender.name == row.contender.name
        }),
    };
    let (against, found) = match bound.against {
        Against::Nothing => (String::new(), row.spread(figure)),
        Against::Contender(name) => {
            (format!(", against {name}"), other.and_then(|other| row.ratio(other)))
        }
        Against::OneSubscriber => {
            (", against 1 subscriber".to_owned(), other.and_then(|other| row.ratio(other)))
        }
    };
    let found = found.map(|spread| spread.median);
    let (wanted, most, least) = match bound.limit {
        Limit::AtMost(most) => (format!("at most {most:.3}"), most, f64::NEG_INFINITY),
        Limit::AtLeast(least) => (format!("at least {least}"), f64::INFINITY, least),
        Limit::OwnSpread => {
            let spread = other.and_then(|other| other.spread(figure));
            let most = spread.map_or(0.0, |spread| spread.high / spread.median);
            (format!("at most {most:.3}, its own spread"), most, f64::NEG_INFINITY)
        }
    };
    Verdict {
        what: format!("{:?} {}{against}", row.case.measure, row.case.name()),
        found,
        wanted,
        kept: found.map(|found| found <= most && found >= least),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::contender::{Can, Contender};
    use crate::job::Report;
    use crate::run::Amount;

    fn row(name: &'static str, case: Case, figures: &[f64]) -> Row {
        let contender = Box::leak(Box::new(Contender {
            name,
            bare: false,
            can: |_| Can::Yes,
            run: |_| Ok(Report::new()),
        }));
        let figure = case.measure.figure().to_owned();
        let rounds = figures.iter().map(|&value| Some(Report::from([(figure.clone(), value)])));
        Row {
            contender,
            case,
            amount: Amount { count: 0, warm_up: 0 },
            rounds: rounds.collect(),
            why_not: None,
            left: BTreeSet::new(),
        }
    }

    fn kept(rows: &[Row]) -> Vec<Option<bool>> {
        verdicts(rows).iter().map(|verdict| verdict.kept).collect()
    }

    #[test]
    fn nothing_is_said_without_the_subject() {
        let case = Case::all(Measure::Latency, &[])[0];
        assert!(kept(&[row(LINE, case, &[80.0])]).is_empty());
    }

    #[test]
    fn ratios_within_a_round_decide() {
        let case = Case::all(Measure::Latency, &[])[0];
        let subject = row(SUBJECT, case, &[88.0, 180.0, 90.0]);
        let line = row(LINE, case, &[80.0, 160.0, 80.0]);
        let slow = row(ICEORYX, case, &[480.0, 960.0, 300.0]);
        // Against the line, iceoryx2 and crossbar, which was not measured.
        assert_eq!(kept(&[subject, line, slow]), [Some(true), Some(true), None]);
        let subject = row(SUBJECT, case, &[100.0]);
        assert_eq!(kept(&[subject, row(LINE, case, &[80.0])]), [Some(false), None, None]);
    }

    #[test]
    fn subscribers_are_compared_with_one() {
        let cases = Case::all(Measure::Publish, &[1, 32]);
        for (many, expected) in [(2.6, true), (3.0, false)] {
            let rows = [row(SUBJECT, cases[0], &[2.4]), row(SUBJECT, cases[1], &[many])];
            assert_eq!(kept(&rows), [Some(expected)], "{many}");
        }
    }

    #[test]
    fn a_spread_is_a_bound() {
        let case = Case::all(Measure::Sleep, &[])[1];
        let futex = || row(FUTEX, case, &[40.0, 50.0, 45.0]);
        assert_eq!(kept(&[row(SUBJECT, case, &[42.0, 52.0, 47.0]), futex()]), [Some(true)]);
        assert_eq!(kept(&[row(SUBJECT, case, &[60.0, 70.0, 65.0]), futex()]), [Some(false)]);
    }
}
