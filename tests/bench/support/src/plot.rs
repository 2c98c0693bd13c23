//! The plots of the performance page, as SVG whose text is text.
//!
//! White ground and dark ink, so that they read the same on a light and on a dark page.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::report::number;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(225, 228, 232);
/// Ours first, in the colour that stands out; the others can be told apart without seeing red and green.
const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(120, 120, 120),
    RGBColor(86, 180, 233),
];

/// One line of a plot; the first of a plot is ours.
#[derive(Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Across and up.
    pub points: Vec<(f64, f64)>,
}

/// One bar of a plot.
#[derive(Debug)]
pub struct Bar {
    /// What it shows.
    pub name: String,
    /// How long it is.
    pub value: f64,
    /// Whether it stands out.
    pub is_ours: bool,
}

/// Words around a plot.
#[derive(Debug)]
pub struct Words<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the axis that goes across.
    pub across: &'a str,
    /// Beside the axis that goes up.
    pub up: &'a str,
}

/// Lines over a logarithmic axis; upwards too when `is_log`.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn lines(words: &Words<'_>, lines: &[Line], is_log: bool) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (800, 440)).into_drawing_area();
        root.fill(&WHITE)?;
        let across = span(lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)));
        let up = span(lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)));
        let mut builder = ChartBuilder::on(&root);
        builder
            .caption(words.title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(64);
        let across = (across.start..across.end).log_scale();
        // The macro draws the same on both kinds of axis, which are different types.
        macro_rules! draw {
            ($up:expr) => {{
                let mut chart = builder.build_cartesian_2d(across, $up)?;
                chart
                    .configure_mesh()
                    .x_desc(words.across)
                    .y_desc(words.up)
                    .axis_style(INK)
                    .bold_line_style(GRID)
                    .light_line_style(TRANSPARENT)
                    .label_style((FONT, 13).into_font().color(&INK))
                    .axis_desc_style((FONT, 14).into_font().color(&INK))
                    .y_labels(8)
                    .x_label_formatter(&|value| number(*value))
                    .y_label_formatter(&|value| number(*value))
                    .draw()?;
                for (Line { name, points }, colour) in lines.iter().zip(COLOURS) {
                    let width = if colour == COLOURS[0] { 3 } else { 2 };
                    chart
                        .draw_series(
                            LineSeries::new(points.clone(), colour.stroke_width(width)).point_size(4),
                        )?
                        .label(name)
                        .legend(move |(x, y)| {
                            PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(width))
                        });
                }
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperRight)
                    .margin(8)
                    .legend_area_size(24)
                    .background_style(WHITE)
                    .border_style(GRID)
                    .label_font((FONT, 13).into_font().color(&INK))
                    .draw()?;
            }};
        }
        if is_log {
            draw!((up.start / 1.3..up.end * 2.5).log_scale());
        } else {
            draw!(0.0..up.end.max(2.0) * 1.3);
        }
        root.present()?;
    }
    Ok(svg)
}

/// Bars to the right, from the first at the top, over a logarithmic axis.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn bars(words: &Words<'_>, bars: &[Bar]) -> Result<String> {
    const NAMES: u32 = 250;
    let mut svg = String::new();
    {
        let size = (800, 110 + 34 * u32::try_from(bars.len())?);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let values = span(bars.iter().map(|bar| bar.value));
        // A bar has to start somewhere; this is half a decade below the shortest.
        let (start, end) = (values.start / 3.0, values.end * 4.0);
        let mut chart = ChartBuilder::on(&root)
            .caption(words.title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(NAMES)
            .build_cartesian_2d((start..end).log_scale(), bars.len() as f64..0.0)?;
        chart
            .configure_mesh()
            .x_desc(words.across)
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .disable_y_mesh()
            .y_labels(0)
            .label_style((FONT, 13).into_font().color(&INK))
            .axis_desc_style((FONT, 14).into_font().color(&INK))
            .x_label_formatter(&|value| number(*value))
            .draw()?;
        for (place, bar) in bars.iter().enumerate() {
            let colour = if bar.is_ours { COLOURS[0] } else { COLOURS[1] };
            let (top, bottom) = (place as f64 + 0.18, place as f64 + 0.82);
            chart.draw_series([Rectangle::new([(start, top), (bar.value, bottom)], colour.filled())])?;
            let text = |place: HPos| (FONT, 14).into_font().color(&INK).pos(Pos::new(place, VPos::Center));
            let (left, middle) = chart.backend_coord(&(start, place as f64 + 0.5));
            let (right, _) = chart.backend_coord(&(bar.value, 0.0));
            root.draw(&Text::new(bar.name.clone(), (left - 10, middle), text(HPos::Right)))?;
            root.draw(&Text::new(number(bar.value), (right + 8, middle), text(HPos::Left)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// From the lowest to the highest value; never empty.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let edges = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    match edges {
        (low, high) if low > 0.0 && low < high => low..high,
        (low, _) if low > 0.0 && low.is_finite() => low..low * 2.0,
        (_, high) => 1.0..high.max(2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_its_words_as_text_and_is_the_same_each_time() {
        let words = Words { title: "Title", across: "subscribers", up: "ns" };
        let draw = || {
            let points = vec![(1.0, 300.0), (10.0, 90.0), (100.0, 60.0)];
            lines(&words, &[Line { name: "Antiphon".to_owned(), points }], true).expect("it can be drawn")
        };
        let svg = draw();
        for word in ["Title", "subscribers", "Antiphon", "<text", "<polyline"] {
            assert!(svg.contains(word), "{word} is missing");
        }
        assert_eq!(svg, draw());
    }

    #[test]
    fn bars_carry_names_and_values() {
        let words = Words { title: "Title", across: "us", up: "" };
        let bar = |name: &str, value| Bar { name: name.to_owned(), value, is_ours: name == "Antiphon" };
        let svg = bars(&words, &[bar("Antiphon", 2.0), bar("Node", 1_500.0)]).expect("it can be drawn");
        for word in ["Antiphon", "Node", "1,500"] {
            assert!(svg.contains(word), "{word} is missing");
        }
    }
}
