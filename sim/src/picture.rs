//! One HTML page of a run: a lane for each process, time downwards, messages as arrows, faults
//! shaded, the violation marked. The page has no script and loads nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::history::{Actor, FramePassage, Record};
use crate::scenario::Scenario;
use crate::world::RunOutcome;

/// Most moments that are drawn, counted back from the violation.
const MAX_MOMENTS: usize = 1_500;

const LANE_WIDTH: usize = 230;
const LEFT: usize = 110;
const TOP: usize = 60;

/// Draws a run.
#[must_use]
pub fn page(scenario: &Scenario, outcome: &RunOutcome) -> String {
    let scale = Scale::new(outcome);
    let lanes = Lanes::new(scenario);
    let (width, height) = (LEFT + lanes.names.len() * LANE_WIDTH + 40, scale.height() + 40);
    let mut svg = String::new();
    for (lane, name) in lanes.names.iter().enumerate() {
        let x = x_of(lane);
        let _ = write!(svg, "<line class=lane x1={x} y1={TOP} x2={x} y2={height} />");
        let _ = write!(svg, "<text class=name x={x} y=30>{name}</text>");
    }
    for (y, at) in scale.ticks() {
        let _ = write!(svg, "<text class=time x=100 y={y}>{}</text>", seconds(at));
    }
    for trouble in &outcome.history.troubles {
        let Some(lane) = lanes.place(trouble.lane) else { continue };
        let (from, to) = (scale.y(trouble.from), scale.y(trouble.to));
        let (x, label) = (x_of(lane) - 12, escape(trouble.label));
        let _ = write!(
            svg,
            "<rect class=trouble x={x} y={from} width=24 height={}><title>{label}, {} to {}</title></rect>",
            (to - from).max(3),
            seconds(trouble.from),
            seconds(trouble.to)
        );
    }
    let mut passages: Vec<&FramePassage> =
        outcome.history.passages.iter().filter(|passage| passage.arrived >= scale.first).collect();
    passages.sort_by_key(|passage| way(passage));
    for together in passages.chunk_by(|a, b| way(a) == way(b)) {
        arrow(&mut svg, &scale, &lanes, together);
    }
    for record in outcome.history.records.iter().filter(|record| record.at >= scale.first) {
        mark(&mut svg, &scale, &lanes, record);
    }
    if let Some((at, violation)) = &outcome.violation {
        let y = scale.y(*at);
        let _ = write!(svg, "<line class=violation x1={LEFT} y1={y} x2={width} y2={y} />");
        let description = escape(&violation.to_string());
        let _ = write!(svg, "<text class=violation x={LEFT} y={}>{description}</text>", y + 18);
    }
    let verdict = outcome
        .violation
        .as_ref()
        .map_or_else(|| "no guarantee broken".to_owned(), |(_, violation)| escape(&violation.to_string()));
    let seed = scenario.seed;
    let text = escape(&scenario.to_string());
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Seed {seed}</title><style>{STYLE}</style>\
         <h1>Seed {seed}</h1><p class=verdict>{verdict}</p><p>Time goes down, as far as something happens; \
         red bands are faults, dots are what a process did (point at them).</p>\
         <svg xmlns='http://www.w3.org/2000/svg' width={width} height={height}>{svg}</svg>\
         <h2>Scenario</h2><pre>{text}</pre></html>\n"
    )
}

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}\
.verdict{font-size:18px;color:#b00020}.lane{stroke:#999}.name{font-weight:bold;text-anchor:middle}\
.time{text-anchor:end;fill:#777;font-size:11px}.trouble{fill:#d32f2f;fill-opacity:.22}\
.up{stroke:#1565c0}.down{stroke:#2e7d32}.message{font-size:10px;fill:#555}.left{text-anchor:end}\
.event{fill:#444}.step{fill:#e65100;font-size:11px}\
line.violation{stroke:#b00020;stroke-width:2}text.violation{fill:#b00020;font-weight:bold}\
pre{background:#f6f6f6;padding:12px}";

/// Places of moments on the page: time without events is not drawn to scale.
struct Scale {
    first: u64,
    moments: Vec<(u64, usize)>,
}

impl Scale {
    fn new(outcome: &RunOutcome) -> Self {
        let mut moments: BTreeSet<u64> = outcome.history.records.iter().map(|record| record.at).collect();
        moments.extend(outcome.history.passages.iter().flat_map(|passage| [passage.sent, passage.arrived]));
        moments.insert(outcome.micros);
        let skip = moments.len().saturating_sub(MAX_MOMENTS);
        let moments: Vec<u64> = moments.into_iter().skip(skip).collect();
        let first = moments.first().copied().unwrap_or(0);
        let (mut y, mut before) = (TOP, first);
        let mut placed = Vec::new();
        for at in moments {
            // From 6 pixels for a microsecond to 40 for a second and more.
            let gap = usize::try_from((at - before).max(1).ilog2()).unwrap_or(0) * 2;
            y += gap.clamp(6, 40);
            placed.push((at, y));
            before = at;
        }
        Self { first, moments: placed }
    }

    fn y(&self, at: u64) -> usize {
        let after = self.moments.partition_point(|(moment, _)| *moment < at);
        self.moments.get(after).or_else(|| self.moments.last()).map_or(TOP, |(_, y)| *y)
    }

    fn height(&self) -> usize {
        self.moments.last().map_or(TOP, |(_, y)| *y)
    }

    /// Returns the moments that are printed beside the lanes, at a minimum distance.
    fn ticks(&self) -> Vec<(usize, u64)> {
        let mut ticks: Vec<(usize, u64)> = Vec::new();
        for &(at, y) in &self.moments {
            if ticks.last().is_none_or(|(before, _)| y - before >= 30) {
                ticks.push((y, at));
            }
        }
        ticks
    }
}

/// Returns a key that is equal for passages that look the same on the page.
const fn way(passage: &FramePassage) -> (Actor, Actor, u64, u64) {
    (passage.from, passage.to, passage.sent, passage.arrived)
}

/// Draws one arrow for passages of the same way. The label is beside the lane at the outer end: to
/// the right for a sent frame, to the left for a received one.
fn arrow(svg: &mut String, scale: &Scale, lanes: &Lanes, together: &[&FramePassage]) {
    let Some(passage) = together.first() else { return };
    let (Some(from), Some(to)) = (lanes.place(passage.from), lanes.place(passage.to)) else { return };
    let up = from > to;
    let (from, to, class) = (x_of(from), x_of(to), if up { "up" } else { "down" });
    let (sent, arrived) = (scale.y(passage.sent), scale.y(passage.arrived));
    let labels: Vec<&str> = together.iter().map(|passage| passage.label.as_str()).collect();
    let short: Vec<&str> = labels.iter().map(|label| label.split(" (").next().unwrap_or_default()).collect();
    let (label, short) = (escape(&labels.join(", ")), escape(&short.join(", ")));
    let (side, x, y) = if up { ("right", from + 10, sent) } else { ("left", to - 10, arrived) };
    let _ = write!(
        svg,
        "<line class={class} x1={from} y1={sent} x2={to} y2={arrived}><title>{label}, sent {}, arrived {}\
         </title></line><circle class={class} cx={to} cy={arrived} r=2 />\
         <text class='message {side}' x={x} y={}>{short}</text>",
        seconds(passage.sent),
        seconds(passage.arrived),
        y + 3,
    );
}

fn mark(svg: &mut String, scale: &Scale, lanes: &Lanes, record: &Record) {
    let (y, text) = (scale.y(record.at), escape(&record.text));
    match lanes.place(record.lane) {
        None if !record.text.starts_with("VIOLATION") => {
            let _ = write!(svg, "<text class=step x={} y={}>{text}</text>", LEFT + 8, y - 3);
        }
        None => {}
        Some(_) if record.text.starts_with("sends") => {}
        Some(lane) => {
            let x = x_of(lane);
            let at = seconds(record.at);
            let _ = write!(svg, "<circle class=event cx={x} cy={y} r=4><title>{at}: {text}</title></circle>");
        }
    }
}

/// Lanes of the page: the registry, if it is a process of its own, the nodes, the clients.
struct Lanes {
    names: Vec<String>,
    nodes: usize,
    registry: usize,
}

impl Lanes {
    fn new(scenario: &Scenario) -> Self {
        let shape = &scenario.shape;
        let (nodes, registry) = (shape.node_count(), usize::from(shape.has_remote_registry()));
        let clients = usize::try_from(shape.clients).unwrap_or(1).clamp(1, 64);
        let lanes = (0..registry).map(|_| Actor::Registry).chain((0..nodes).map(Actor::Node));
        let names = lanes.chain((0..clients).map(Actor::Client)).map(|lane| lane.to_string()).collect();
        Self { names, nodes, registry }
    }

    fn place(&self, lane: Actor) -> Option<usize> {
        match lane {
            Actor::World => None,
            Actor::Registry => Some(0),
            Actor::Node(number) => Some(self.registry + number),
            Actor::Client(number) => Some(self.registry + self.nodes + number),
        }
    }
}

fn x_of(lane: usize) -> usize {
    LEFT + LANE_WIDTH / 2 + lane * LANE_WIDTH
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&quot;")
}
