//! The picture of a backtest: equity, drawdown and position over time, as SVG.

use std::path::Path;

use anyhow::{anyhow, bail};
use k8s_openapi::jiff::Timestamp;
use plotters::coord::Shift;
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;
use rust_decimal::prelude::ToPrimitive;

use crate::backtest::Point;

const SIZE: (u32, u32) = (1000, 700);
const HEIGHTS: [f64; 2] = [0.5, 0.76];
const FONT: &str = "sans-serif";
const EQUITY: RGBColor = RGBColor(31, 97, 169);
const DRAWDOWN: RGBColor = RGBColor(192, 57, 43);
const POSITION: RGBColor = RGBColor(90, 90, 90);
/// Seconds between two marks of the time axis, from a second to a year.
const STEPS: [i64; 22] = [
    1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600,
    2_592_000, 7_776_000, 31_536_000,
];
const MARKS: i64 = 10;
const DAY: i64 = 86_400;

/// What a picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Svg,
    Html,
}

impl Form {
    /// By the name of the file.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("html") => Ok(Self::Html),
            _ => bail!("--plot {}: name a file that ends with .svg or .html", path.display()),
        }
    }
}

/// One line of the picture, and what it is.
struct Panel {
    title: &'static str,
    color: RGBColor,
    values: Vec<f64>,
    /// Whether the space between line and zero is filled.
    filled: bool,
}

/// Draws the curve.
pub fn plot(curve: &[Point], name: &str) -> anyhow::Result<String> {
    let (Some(first), Some(last)) = (curve.first(), curve.last()) else {
        bail!("there is nothing to draw: the bot never knew what it was worth");
    };
    let times: Vec<i64> = curve.iter().map(|point| point.at.as_second()).collect();
    let span = (first.at.as_second(), last.at.as_second().max(first.at.as_second() + 1));
    let equity: Vec<f64> = curve.iter().map(|point| point.equity_quote.to_f64().unwrap_or_default()).collect();
    let drawdown = drawdown(&equity);
    let notional = curve.iter().map(|point| point.notional_quote.to_f64().unwrap_or_default()).collect();
    let panels = [
        Panel { title: "Equity since the beginning", color: EQUITY, values: equity, filled: false },
        Panel { title: "Drawdown", color: DRAWDOWN, values: drawdown, filled: true },
        Panel { title: "Value of the larger leg", color: POSITION, values: notional, filled: true },
    ];
    let mut svg = String::new();
    draw(&mut svg, name, span, &times, &panels).map_err(|cause| anyhow!("the picture cannot be drawn: {cause}"))?;
    Ok(svg)
}

/// How far below its highest value each value is; zero or less.
fn drawdown(equity: &[f64]) -> Vec<f64> {
    let mut peak = f64::MIN;
    let below = |value: &f64| {
        peak = peak.max(*value);
        value - peak
    };
    equity.iter().map(below).collect()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, name: &str, span: (i64, i64), times: &[i64], panels: &[Panel]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let at = |second: i64| Timestamp::from_second(second).map(|at| at.to_string()).unwrap_or_default();
    let title = format!("Backtest of {name}, {} to {}, in quote currency", at(span.0), at(span.1));
    let area = root.titled(&title, (FONT, 18))?;
    let (upper, rest) = area.split_vertically(f64::from(SIZE.1) * HEIGHTS[0]);
    let (middle, lower) = rest.split_vertically(f64::from(SIZE.1) * (HEIGHTS[1] - HEIGHTS[0]));
    for (area, panel) in [upper, middle, lower].iter().zip(panels) {
        draw_panel(area, span, times, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    (from, to): (i64, i64),
    times: &[i64],
    panel: &Panel,
) -> Drawn {
    let (low, high) = bounds(&panel.values);
    let step = step(to - from);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 15).into_font().color(&panel.color))
        .margin_left(10)
        .margin_right(30)
        .x_label_area_size(28)
        .y_label_area_size(80)
        .build_cartesian_2d((from..to).with_key_points(marks(from, to, step)), low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .y_labels(6)
        .label_style((FONT, 13))
        .x_label_formatter(&|second| label(*second, step))
        .y_label_formatter(&|value| figure(*value, high - low))
        .draw()?;
    let line = || times.iter().copied().zip(panel.values.iter().copied());
    if panel.filled {
        chart.draw_series(AreaSeries::new(line(), 0.0, panel.color.mix(0.2)).border_style(panel.color))?;
    } else {
        chart.draw_series(LineSeries::new(line(), panel.color.stroke_width(1)))?;
    }
    Ok(())
}

/// The range of the axis: all values and zero, with a little air.
fn bounds(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(0.0, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    let air = ((high - low) * 0.05).max(0.005);
    (if low < 0.0 { low - air } else { 0.0 }, if high > 0.0 || low >= 0.0 { high + air } else { 0.0 })
}

/// The smallest step with which no more than so many marks are on the axis.
fn step(span: i64) -> i64 {
    STEPS.into_iter().find(|step| span / step <= MARKS).unwrap_or(span / MARKS)
}

/// Moments at which a step is whole.
fn marks(from: i64, to: i64, step: i64) -> Vec<i64> {
    let first = from + (-from).rem_euclid(step);
    (0..=MARKS + 1).map(|n| first + n * step).take_while(|second| *second <= to).collect()
}

fn label(second: i64, step: i64) -> String {
    let Ok(at) = Timestamp::from_second(second) else { return String::new() };
    let form = match step {
        DAY.. => "%Y-%m-%d",
        _ if second.rem_euclid(DAY) == 0 => "%m-%d",
        60.. => "%H:%M",
        _ => "%H:%M:%S",
    };
    at.strftime(form).to_string()
}

/// With as many decimals as tell the marks apart.
fn figure(value: f64, span: f64) -> String {
    let decimals = if span >= 50.0 {
        0
    } else if span >= 0.5 {
        2
    } else {
        4
    };
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').trim_matches(['0', '.']).is_empty() { "0".to_owned() } else { text }
}

/// A page with the picture and the report, which is text.
pub fn page(name: &str, picture: &str, report: &str) -> String {
    let [name, report] = [name, report].map(escaped);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Backtest of {name}</title>\n\
         <style>body {{ font-family: sans-serif; max-width: 64rem; margin: 2rem auto }} svg {{ max-width: 100% }}</style>\n\
         {picture}\n<pre>{report}</pre>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn curve(equity: &[i64], every: i64) -> Vec<Point> {
        let at = |n: usize| Timestamp::from_second(1_795_000_000 + i64::try_from(n).unwrap() * every).unwrap();
        let point = |(n, equity): (usize, &i64)| Point {
            at: at(n),
            equity_quote: Decimal::from(*equity),
            notional_quote: Decimal::from(3000),
        };
        equity.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_picture_has_its_three_panels_and_times_that_people_read() {
        let svg = plot(&curve(&[0, 5, -3, 8, 7, 12], 43_200), "btc-carry").unwrap();
        for text in ["Backtest of btc-carry", "Equity since the beginning", "Drawdown", "Value of the larger leg"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.starts_with("<svg") && svg.contains("11-1"), "{svg}");
        assert!(plot(&[], "x").is_err());
        // One moment, and a flat line, are a picture, too.
        assert!(plot(&curve(&[0], 1), "x").is_ok() && plot(&curve(&[0, 0, 0], 1), "x").is_ok());
    }

    #[test]
    fn marks_are_whole_steps_and_few() {
        for span in [1, 59, 3600, 7 * 3600, 86_400, 30 * 86_400, 5000 * 86_400] {
            let (from, step) = (1_795_000_123, step(span));
            let marks = marks(from, from + span, step);
            assert!(marks.len() <= 12 && marks.iter().all(|mark| mark % step == 0), "{span}: {marks:?}");
        }
        assert_eq!((label(1_795_046_400, 3600), label(1_795_050_000, 3600)), ("11-19".into(), "01:00".into()));
    }

    #[test]
    fn a_drawdown_is_measured_from_the_peak() {
        assert_eq!(drawdown(&[0.0, 5.0, 3.0, 6.0, 1.0]), [0.0, 0.0, -2.0, 0.0, -5.0]);
    }

    #[test]
    fn a_page_has_no_markup_of_a_name() {
        assert!(page("<b>", "<svg/>", "a < b").contains("&lt;b&gt;") && page("x", "<svg/>", "").contains("<svg/>"));
        assert!(Form::of(Path::new("x.png")).is_err());
    }
}
