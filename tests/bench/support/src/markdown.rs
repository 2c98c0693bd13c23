//! Tables in Markdown.

/// A table whose first column is text and whose others are numbers. Cells are escaped.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut head.iter().map(|cell| escaped(cell)));
    let rule = |column| if column == 0 { "---".to_owned() } else { "---:".to_owned() };
    text += &line(&mut (0..head.len()).map(rule));
    for row in rows {
        text += &line(&mut row.iter().map(|cell| escaped(cell)));
    }
    text
}

fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_rendered_with_numbers_to_the_right() {
        let rows = [vec!["ours".to_owned(), "1".to_owned()], vec!["a|b".to_owned(), "<= 2".to_owned()]];
        let want = "| who | ns |\n| --- | ---: |\n| ours | 1 |\n| a\\|b | &lt;= 2 |\n";
        assert_eq!(table(&["who", "ns"], &rows), want);
    }
}
