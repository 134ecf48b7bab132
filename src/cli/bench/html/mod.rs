//! A report as one page that needs no other file: no script, no picture, nothing from elsewhere;
//! and one of its drawings as a picture for other pages.
//!
//! Pure: a report in, text out. First on the page is what became of the promises, then drawings whose
//! titles say what they show, then every table.

mod picture;

mod against;
mod header;
mod plots;
mod tables;
mod verdicts;

mod drawing;
mod lines;
mod markup;
mod number;
mod scale;
mod shapes;
mod strips;

#[cfg(test)]
mod tests;

use super::report::Report;
use markup::Markup;
pub use picture::ttft;
use plots::{Chart, Plot};

const STYLE: &str =
    concat!(include_str!("colours.css"), include_str!("drawing.css"), include_str!("page.css"));
/// The page may load nothing and run nothing, whatever a report holds.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut page = Markup::new();
    page.raw("<!DOCTYPE html>\n");
    page.element("html", &[("lang", &"en")], |html| {
        html.element("head", &[], |head| {
            head.empty("meta", &[("charset", &"utf-8")]);
            head.empty("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
            let viewport = "width=device-width, initial-scale=1";
            head.empty("meta", &[("name", &"viewport"), ("content", &viewport)]);
            head.empty("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
            head.words("title", &[], &header::title(report));
            head.element("style", &[], |style| style.raw(STYLE));
        });
        html.element("body", &[], |body| {
            header::draw(report, body);
            body.element("main", &[], |main| {
                verdicts::draw(report, main);
                if let Some(comparison) = &report.against {
                    against::draw(comparison, main);
                }
                draw_plots(&plots::plots(report), main);
                tables::draw(report, main);
            });
            header::draw_method(report, body);
        });
    });
    page.finish()
}

fn draw_plots(plots: &[Plot], main: &mut Markup) {
    if plots.is_empty() {
        return;
    }
    main.element("section", &[("aria-labelledby", &"drawings")], |section| {
        section.words("h2", &[("id", &"drawings")], "What was found");
        section.element("div", &[("class", &"figures")], |figures| {
            for plot in plots {
                figures.element("figure", &[], |figure| draw_plot(plot, figure));
            }
        });
    });
}

fn draw_plot(plot: &Plot, figure: &mut Markup) {
    figure.element("figcaption", &[], |caption| {
        caption.words("h3", &[], &plot.finding);
        caption.words("p", &[("class", &"about")], plot.about);
    });
    match &plot.chart {
        Chart::Lines(lines) => {
            figure.add(&lines.draw(&plot.finding));
            figure.element("details", &[], |details| {
                details.words("summary", &[], "The figures");
                tables::draw_grid(&plot.finding, &lines.table(), details);
            });
        }
        // The figures stand beside the marks.
        Chart::Strips(strips) => figure.add(&strips.draw()),
    }
}
