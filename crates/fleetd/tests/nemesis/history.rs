//! What really ran, and when: from the journals of the hosts' systemd, of all boots.

use std::collections::BTreeMap;

use fleet_sandbox::Host;

use crate::clock::Micros;

/// systemd's messages, from its catalogue.
const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";
const FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";
const SUCCEEDED: &str = "7ad2d189f7e94e70a38c781354912448";

/// How a copy of a unit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It runs.
    None,
    /// Its systemd stopped it, or it ended.
    Stopped,
    /// Its systemd has given it up.
    Failed,
    /// Its machine lost its power.
    Power,
}

/// One invocation of a unit on one host.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) host: usize,
    pub(crate) unit: String,
    pub(crate) invocation: String,
    pub(crate) from: Micros,
    /// Its end; of one that runs, the time of the look.
    pub(crate) until: Micros,
    pub(crate) end: End,
}

/// A line of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) at: Micros,
    pub(crate) unit: String,
    pub(crate) invocation: String,
    pub(crate) message_id: String,
}

/// What PID 1 of a host has said of the units in question.
pub(crate) fn lines_of(host: &Host, is_ours: impl Fn(&str) -> bool) -> Vec<Line> {
    let fields = "--output-fields=UNIT,INVOCATION_ID,MESSAGE_ID,_SOURCE_REALTIME_TIMESTAMP";
    let text = host.journal(&["-o", "json", fields, "_PID=1"]).unwrap();
    let lines = text.lines().filter_map(parse);
    lines.filter(|line| is_ours(&line.unit)).collect()
}

fn parse(line: &str) -> Option<Line> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| line[name].as_str().map(str::to_owned);
    // When it was said; the other one is when the journal came to write it down.
    let at = field("_SOURCE_REALTIME_TIMESTAMP").or_else(|| field("__REALTIME_TIMESTAMP"))?;
    Some(Line {
        at: at.parse().ok()?,
        unit: field("UNIT")?,
        invocation: field("INVOCATION_ID")?,
        message_id: field("MESSAGE_ID")?,
    })
}

/// The copies that ran on a host whose power was cut at these points.
pub(crate) fn copies(host: usize, lines: &[Line], power_cuts: &[Micros], now: Micros) -> Vec<Copy> {
    let mut found: BTreeMap<(&str, &str), Copy> = BTreeMap::new();
    for line in lines {
        let key = (line.unit.as_str(), line.invocation.as_str());
        match line.message_id.as_str() {
            // What is started at once has no first line.
            STARTING | STARTED => {
                let copy = Copy {
                    host,
                    unit: line.unit.clone(),
                    invocation: line.invocation.clone(),
                    from: line.at,
                    until: now,
                    end: End::None,
                };
                found.entry(key).or_insert(copy);
            }
            STOPPED | FAILED | SUCCEEDED => {
                if let Some(copy) = found.get_mut(&key)
                    && copy.end == End::None
                {
                    copy.until = line.at;
                    copy.end = match line.message_id == FAILED {
                        true => End::Failed,
                        false => End::Stopped,
                    };
                }
            }
            _ => {}
        }
    }
    let mut copies: Vec<Copy> = found.into_values().collect();
    for copy in &mut copies {
        let cut = power_cuts
            .iter()
            .find(|cut| copy.from <= **cut && **cut < copy.until);
        if let Some(cut) = cut {
            copy.until = *cut;
            copy.end = End::Power;
        }
    }
    copies.sort_by_key(|copy| copy.from);
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_become_copies_with_their_ends() {
        let line = |at, invocation: &str, message_id: &str| Line {
            at,
            unit: "a.service".to_owned(),
            invocation: invocation.to_owned(),
            message_id: message_id.to_owned(),
        };
        let lines = [
            line(10, "one", STARTED),
            line(20, "one", SUCCEEDED),
            line(21, "one", STOPPED),
            line(30, "two", STARTED),
            line(60, "three", STARTING),
            line(61, "three", STARTED),
            line(70, "four", STARTED),
            line(71, "four", FAILED),
        ];
        let ends = copies(4, &lines, &[5, 50], 99)
            .into_iter()
            .map(|copy| (copy.invocation, copy.from, copy.until, copy.end));
        assert_eq!(
            ends.collect::<Vec<_>>(),
            [
                ("one".to_owned(), 10, 20, End::Stopped),
                ("two".to_owned(), 30, 50, End::Power),
                ("three".to_owned(), 60, 99, End::None),
                ("four".to_owned(), 70, 71, End::Failed),
            ]
        );
    }
}
