//! The plots of docs/scale.md.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::feeds::Row;
use crate::syncs;

/// A curve: its name, its colour, its points.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

/// `scale-time.svg` and `scale-memory.svg`, over the number of feeds, both axes logarithmic.
pub(crate) fn feeds(folder: &Path, rows: &[Row]) -> Result<()> {
    let curve = |name, colour, value: &dyn Fn(&Row) -> Option<f64>| -> Curve {
        let points = rows.iter().filter_map(|row| Some((f64::from(row.feeds), value(row)?)));
        (name, colour, points.collect())
    };
    let times = [
        curve("JS opens", RED, &|row| row.open_js),
        curve("opens", BLUE, &|row| Some(row.open)),
        curve("pulls all", BLACK, &|row| row.pull.map(|time| time.as_secs_f64())),
        curve("pulls nothing", MAGENTA, &|row| row.again.map(|time| time.as_secs_f64())),
        curve("JS pulls all", GREEN, &|row| row.pull_js.map(|time| time.as_secs_f64())),
    ];
    draw(&folder.join("scale-time.svg"), "seconds", &times)?;
    let bytes = |bytes: u64| Some(bytes as f64 / 1e6);
    let memory = [
        curve("opens", BLUE, &|row| bytes(row.open_bytes)),
        curve("serves", RED, &|row| row.pull.and_then(|_| bytes(row.server.bytes))),
        curve("pulls", BLACK, &|row| row.pull.and_then(|_| bytes(row.puller.bytes))),
    ];
    draw(&folder.join("scale-memory.svg"), "MB resident at the most", &memory)
}

/// `scale-syncs.svg`: bytes over the number of feeds.
pub(crate) fn syncs(folder: &Path, rows: &[syncs::Row]) -> Result<()> {
    let curve = |name, colour, differing, reconcile| -> Curve {
        let of_it = rows.iter().filter(|row| row.differing == differing && row.reconcile == reconcile);
        (name, colour, of_it.map(|row| (row.feeds as f64, row.bytes as f64)).collect())
    };
    let curves = [
        curve("full key lists, none differ", RED, 0, false),
        curve("full key lists, 1,000 differ", MAGENTA, 1_000, false),
        curve("reconciled, 1,000 differ", BLACK, 1_000, true),
        curve("reconciled, 10 differ", GREEN, 10, true),
        curve("reconciled, 1 differs", CYAN, 1, true),
        curve("reconciled, none differ", BLUE, 0, true),
    ];
    draw(&folder.join("scale-syncs.svg"), "bytes on the wire, both ways", &curves)
}

fn draw(path: &Path, unit: &str, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|(_, _, points)| points.iter().copied());
    let range = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        least * 0.8..most * 1.25
    };
    let (x, y) = (range(points().map(|(x, _)| x).collect()), range(points().map(|(_, y)| y).collect()));
    let root = SVGBackend::new(path, (800, 500)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&root)
        .margin(15)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(x.log_scale(), y.log_scale())
        .map_err(|error| failed(&error))?;
    chart.configure_mesh().x_desc("feeds").y_desc(unit).draw().map_err(|error| failed(&error))?;
    for (name, colour, points) in curves {
        let style = colour.stroke_width(2);
        let line = LineSeries::new(points.iter().copied(), style).point_size(3);
        let drawn = chart.draw_series(line).map_err(|error| failed(&error))?;
        drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK);
    legend.draw().map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}
