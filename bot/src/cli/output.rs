//! What commands print: a table for people, JSON or CSV for programs. The columns have the same names in all three.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::ContentArrangement;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Map, Value};

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// An array of objects; every value is a string, so that no number loses a digit.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

/// Rows under named columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Rows {
    #[must_use]
    pub fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: one value for each column, in their order. What comes from outside may hold anything, so nothing
    /// that could move a terminal's cursor is kept.
    pub fn push<T: Into<String>>(&mut self, values: impl IntoIterator<Item = T>) {
        let printable = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut row: Vec<String> = values.into_iter().map(|value| printable(value.into())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text in one form, with a line end.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table if self.rows.is_empty() => "none\n".to_owned(),
            Format::Table => {
                let mut table = comfy_table::Table::new();
                // As wide as the terminal; where there is none, as wide as it needs.
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.load_style(UTF8_FULL_CONDENSED).set_header(self.columns).add_rows(&self.rows);
                format!("{table}\n")
            }
            Format::Json => {
                let object = |row: &Vec<String>| {
                    let fields = self.columns.iter().zip(row).map(|(name, value)| ((*name).to_owned(), value.clone()));
                    Value::Object(fields.map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>())
                };
                format!("{:#}\n", Value::Array(self.rows.iter().map(object).collect()))
            }
            Format::Csv => {
                let header = self.columns.iter().map(|name| (*name).to_owned()).collect();
                std::iter::once(&header).chain(&self.rows).map(|row: &Vec<String>| csv_line(row)).collect()
            }
        }
    }

    /// Prints on standard output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self, format: Format) -> io::Result<()> {
        io::stdout().lock().write_all(self.render(format).as_bytes())
    }
}

/// A line of RFC 4180. Control characters, line ends among them, are gone already.
fn csv_line(row: &[String]) -> String {
    let field = |text: &String| {
        if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.clone() }
    };
    row.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(&["id", "message"]);
        rows.push(["1", "say \"no\", twice\u{1b}[2J"]);
        rows
    }

    #[test]
    fn every_form_has_the_same_columns_and_values() {
        let json: Value = serde_json::from_str(&rows().render(Format::Json)).unwrap();
        assert_eq!(json[0]["message"], "say \"no\", twice [2J");
        assert_eq!(rows().render(Format::Csv), "id,message\r\n1,\"say \"\"no\"\", twice [2J\"\r\n");
        let table = rows().render(Format::Table);
        assert!(table.contains("message") && table.contains("twice"), "{table}");
    }

    #[test]
    fn no_rows_are_no_error() {
        let none = Rows::new(&["id"]);
        assert_eq!([Format::Table, Format::Json, Format::Csv].map(|f| none.render(f)), ["none\n", "[]\n", "id\r\n"]);
    }
}
