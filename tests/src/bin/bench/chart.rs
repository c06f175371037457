//! Bars, as SVG.

use std::fmt::Write as _;

/// One figure for each name.
#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    pub unit: &'static str,
    pub bars: Vec<Bar>,
}

#[derive(Debug)]
pub struct Bar {
    pub name: &'static str,
    pub value: f64,
    /// Where a thin line from the bar's end leads.
    pub most: Option<f64>,
}

/// In pixels: the picture, the names left of the bars, what is right of them, a bar with the
/// space below it.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 300.0;
const MARGIN: f64 = 150.0;
const STEP: f64 = 26.0;
/// A title and the space above it.
const TITLE: f64 = 54.0;

/// All charts, one below the other.
pub fn svg(charts: &[Chart], caption: &str) -> String {
    let mut drawn = String::new();
    let mut y = 0.0;
    for chart in charts {
        y = chart.draw(&mut drawn, y);
    }
    let caption = escaped(caption);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" fill="#24292f">
<rect width="100%" height="100%" fill="#ffffff"/>
{drawn}<text x="16" y="{bottom}" font-size="11" fill="#6e7781">{caption}</text>
</svg>
"##,
        height = y + 44.0,
        bottom = y + 28.0,
    )
}

impl Chart {
    /// Draws it below `y` and returns where it ends.
    fn draw(&self, svg: &mut String, y: f64) -> f64 {
        let Self { title, unit, bars } = self;
        let ends = bars
            .iter()
            .map(|bar| bar.most.unwrap_or(bar.value).max(bar.value));
        let most = ends.fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - NAMES - MARGIN) / most;
        let mut line = |text: String| writeln!(svg, "{text}").expect("a string takes it");
        line(format!(
            r#"<text x="16" y="{}" font-size="15" font-weight="600">{}</text>"#,
            y + 34.0,
            escaped(title)
        ));
        let mut y = y + TITLE;
        for Bar { name, value, most } in bars {
            let (length, middle) = (value * scale, y + 9.0);
            let color = if name.starts_with("spotsim") {
                "#2da44e"
            } else {
                "#8c959f"
            };
            let (name, end) = (escaped(name), most.unwrap_or(*value) * scale);
            line(format!(
                r#"<text x="{}" y="{}" text-anchor="end">{name}</text>"#,
                NAMES - 10.0,
                y + 14.0
            ));
            line(format!(
                r#"<rect x="{NAMES}" y="{y}" width="{length:.1}" height="18" rx="2" fill="{color}"/>"#
            ));
            let figure = match most {
                Some(most) => {
                    line(format!(
                        r#"<path d="M{:.1} {middle} H{:.1} m0 -5 v10" stroke="{color}" stroke-width="2" fill="none"/>"#,
                        NAMES + length,
                        NAMES + end
                    ));
                    format!("{value:.0}, {most:.0} {unit}")
                }
                None => format!("{value:.0} {unit}"),
            };
            line(format!(
                r#"<text x="{:.1}" y="{}">{figure}</text>"#,
                NAMES + end + 8.0,
                y + 14.0
            ));
            y += STEP;
        }
        y
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width() {
        let bar = |name, value| Bar {
            name,
            value,
            most: None,
        };
        let chart = Chart {
            title: "a < b",
            unit: "µs",
            bars: vec![bar("long", 200.0), bar("short", 100.0)],
        };
        let svg = svg(&[chart], "");
        assert!(svg.contains(r#"width="410.0""#), "{svg}");
        assert!(svg.contains(r#"width="205.0""#), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }
}
