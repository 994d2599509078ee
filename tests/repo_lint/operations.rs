//! Rules for `docs/operations.md`: the page names every metric and every reason not to be ready.

use std::collections::BTreeSet;

use skirmish_io::server::Reason;
use skirmish_tests::http::get;
use skirmish_tests::server::Running;

use super::read;

#[tokio::test]
async fn the_operations_page_is_that_of_the_program() {
    let server = Running::start(|_| {}).await;
    let (status, metrics) = get(server.admin, "/metrics").await;
    assert_eq!(status, 200, "{metrics}");
    let wrong = page_broken(&read("docs/operations.md"), &metrics);
    assert!(wrong.is_empty(), "docs/operations.md\n{}", wrong.join("\n"));
}

fn page_broken(page: &str, metrics: &str) -> Vec<String> {
    let rows: Vec<Vec<&str>> =
        page.lines().filter(|line| line.starts_with("| ")).map(|line| line.split('`').collect()).collect();
    // Every second piece was between two backticks.
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| row.iter().skip(1).step_by(2).copied()).collect();
    let first: BTreeSet<&str> = rows.iter().filter(|row| row[0] == "| ").map(|row| row[1]).collect();
    let warnings: Vec<String> = Reason::ALL
        .iter()
        .filter(|reason| reason.is_warning())
        .map(|reason| reason.name().to_owned())
        .collect();

    let mut wrong = Vec::new();
    for name in metrics.lines().filter_map(metric) {
        if !named.contains(name.as_str()) {
            wrong.push(format!("the metric {name} has no row"));
        }
    }
    for name in Reason::ALL.iter().filter(|reason| !reason.is_warning()).map(|reason| reason.name()) {
        if !first.contains(name) {
            wrong.push(format!("the reason {name} has no row"));
        }
    }
    for name in warnings.iter().filter(|name| !page.contains(&format!("`{name}`"))) {
        wrong.push(format!("the warning {name} is not named"));
    }
    wrong
}

/// Returns the name of a metric, without the prefix, from the line with its type.
fn metric(line: &str) -> Option<String> {
    let (name, kind) = line.strip_prefix("# TYPE skirmish_")?.split_once(' ')?;
    Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
}

mod rules {
    use super::*;

    #[test]
    fn a_page_has_every_metric_and_reason() {
        let metrics = "# TYPE skirmish_rooms gauge\nskirmish_rooms 3\n# TYPE skirmish_entries counter\n";
        let rows: String =
            Reason::ALL.iter().map(|reason| format!("| `{}` | holds |\n", reason.name())).collect();
        let good = format!("{rows}| load | `rooms`, `entries_total` |\n");
        assert_eq!(page_broken(&good, metrics), Vec::<String>::new());
        for (from, to) in [
            ("`rooms`", "rooms"),
            ("`entries_total`", "`entries`"),
            ("| `draining`", "| also `draining`"),
            ("`peer_unreachable`", "peer"),
        ] {
            let wrong = page_broken(&good.replace(from, to), metrics);
            assert_eq!(wrong.len(), 1, "{from} {to}: {wrong:?}");
        }
    }
}
