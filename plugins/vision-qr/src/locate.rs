//! Squares of QR codes in a picture: finder patterns, threes of them that fit, and the grid they span.
//!
//! All work is bounded by the size of the picture and by [`MAX_SAMPLES`], and no input makes it panic: sizes and
//! coordinates are checked where they become indices.
//!
//! Not here: what the bits of a square mean; the caller reads them.

mod bitmap;
mod finder;
mod grid;
mod transform;

pub(crate) use self::bitmap::Bitmap;
use self::{
    finder::Finder,
    grid::Module,
    transform::{Point, Transform},
};

/// Finder patterns that are combined into threes: those seen in most rows, enough for a sheet of twenty codes.
const MAX_FINDERS: usize = 64;

/// Looks at single modules that a pass may cost between one code that is read and the next, about 40 ms in a release
/// build. No zxing photo needs more than 2 million.
const MAX_SAMPLES: u64 = 4_000_000;

/// Agreement of three finder patterns with the square that they would span, before it is looked at closely. Source:
/// 0.58 is the least that a code of the zxing photos has which can be read, 0.3 the most in white noise.
const ALIKE: f64 = 0.5;

/// Agreement with the fixed patterns from which an unreadable square is taken for a damaged code.
const SURE: f64 = 0.8;

/// Agreement with the fixed patterns below which a square is not even read.
const LIKELY: f64 = 0.5;

/// A square with the modules of a code.
#[derive(Debug, Clone)]
pub(crate) struct Square {
    /// Version of the code, `1..=40`.
    pub(crate) version: u8,
    /// Corners in pixels, clockwise from the code's own top left.
    pub(crate) corners: [Point; 4],
    transform: Transform,
    /// Share of the fixed patterns that is there minus the share that is not, in `-1.0..=1.0`.
    fitness: f64,
}

/// Finds squares and lets `read` try each: it is given the modules per side and their darkness by column and row, and
/// returns none when this is no code. A square that looks like a code but was never read is returned without a
/// reading.
pub(crate) fn squares<R>(
    bitmap: &Bitmap,
    mut read: impl FnMut(usize, &dyn Fn(usize, usize) -> bool) -> Option<R>,
) -> Vec<(Square, Option<R>)> {
    let mut finders = finder::find(bitmap);
    // The core of the smallest pattern is three rows high; noise rarely repeats itself.
    finders.retain(|finder| finder.rows > 1);
    finders.sort_by_key(|finder| std::cmp::Reverse(finder.rows));
    finders.truncate(MAX_FINDERS);

    let mut search = Search { bitmap, samples_left: MAX_SAMPLES };
    let mut used = vec![false; finders.len()];
    let mut found = Vec::new();
    let mut unread: Vec<([usize; 3], Square)> = Vec::new();
    for corners in threes(&finders) {
        if search.samples_left == 0 {
            break;
        }
        if corners.iter().any(|&index| used[index]) {
            continue;
        }
        let candidates = search.candidates(corners.map(|index| finders[index]));
        let reading = candidates.iter().enumerate().find_map(|(index, square)| {
            let bit = |column: usize, row: usize| square.is_dark(bitmap, column, row);
            Some((index, read(grid::size(square.version), &bit)?))
        });
        match reading {
            Some((index, reading)) => {
                corners.into_iter().for_each(|corner| used[corner] = true);
                search.samples_left = MAX_SAMPLES;
                found.push((candidates[index].clone(), Some(reading)));
            }
            None => {
                let best = candidates.into_iter().max_by(|a, b| a.fitness.total_cmp(&b.fitness));
                unread.extend(best.filter(|square| square.fitness >= SURE).map(|square| (corners, square)));
            }
        }
    }
    unread.sort_by(|a, b| b.1.fitness.total_cmp(&a.1.fitness));
    for (corners, square) in unread {
        if corners.iter().all(|&index| !used[index]) {
            corners.into_iter().for_each(|corner| used[corner] = true);
            found.push((square, None));
        }
    }
    found
}

/// Threes of finder patterns that could be the corners of one code, as `[top left, top right, bottom left]`, the most
/// regular ones first.
fn threes(finders: &[Finder]) -> Vec<[usize; 3]> {
    let mut threes = Vec::new();
    for a in 0..finders.len() {
        for b in a + 1..finders.len() {
            for c in b + 1..finders.len() {
                threes.extend(three(finders, [a, b, c]));
            }
        }
    }
    threes.sort_by(|a, b| a.0.total_cmp(&b.0));
    threes.into_iter().map(|(_, corners)| corners).collect()
}

/// Orders three finder patterns by their place in the code; none when they are too unlike or form no right angle.
/// The number is 0 for a perfect square and grows with what is odd about it.
fn three(finders: &[Finder], corners: [usize; 3]) -> Option<(f64, [usize; 3])> {
    let modules = corners.map(|index| finders[index].module);
    let small = modules.into_iter().fold(f64::INFINITY, f64::min);
    let large = modules.into_iter().fold(0.0, f64::max);
    let distance = |a: usize, b: usize| finders[a].distance(&finders[b]);
    let [a, b, c] = corners;
    // The corner opposite to the longest side is the top left one.
    let sides = [(distance(b, c), [a, b, c]), (distance(c, a), [b, c, a]), (distance(a, b), [c, a, b])];
    let [_, _, (_, [top_left, mut right, mut below])] = {
        let mut sides = sides;
        sides.sort_by(|a, b| a.0.total_cmp(&b.0));
        sides
    };
    let (long, short) = {
        let legs = [distance(top_left, right), distance(top_left, below)];
        (legs[0].max(legs[1]), legs[0].min(legs[1]))
    };
    // The centers of version 1 are 14 modules apart, those of version 40 170.
    if large > 2.0 * small || long > 1.8 * short || short < 10.0 * small || long > 200.0 * large {
        return None;
    }
    let leg = |to: usize| (finders[to].x - finders[top_left].x, finders[to].y - finders[top_left].y);
    let (u, v) = (leg(right), leg(below));
    let cosine = (u.0 * v.0 + u.1 * v.1).abs() / (long * short);
    if cosine > 0.5 {
        return None;
    }
    if u.0 * v.1 < u.1 * v.0 {
        std::mem::swap(&mut right, &mut below);
    }
    // On a sheet of codes, corners of different codes are as regular as those of one; those of one are closer.
    let modules = long / large;
    Some((cosine + long / short + large / small - 2.0 + modules / 1000.0, [top_left, right, below]))
}

/// Looks at modules until the budget is used up.
struct Search<'a> {
    bitmap: &'a Bitmap,
    samples_left: u64,
}

impl Search<'_> {
    /// Squares that the three finder patterns may span, the likely ones first: two sizes, and for each the places
    /// where an alignment pattern shows.
    fn candidates(&mut self, corners: [Finder; 3]) -> Vec<Square> {
        let spans = self.spans(&corners);
        let [a, b, d] = corners.map(|corner| corner.center());
        let flat = (b.0 + d.0 - a.0, b.1 + d.1 - a.1);
        let mut sizes = Vec::new();
        for version in versions(&corners, &spans) {
            let fourths = [Some(flat), fourth(&corners, &spans)];
            let best = fourths.into_iter().flatten().filter_map(|c| {
                let to = [a, b, c, d];
                let transform = Transform::between(&centers(version), &to)?;
                Some((self.fitness(&transform, &grid::finders(version)), transform, to))
            });
            let best = best.max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((finders, transform, to)) = best
                && finders >= ALIKE
            {
                let timing = self.fitness(&transform, &grid::timing(version));
                sizes.push((finders + timing, version, transform, to));
            }
        }
        sizes.sort_by(|a, b| b.0.total_cmp(&a.0));
        sizes.truncate(2);

        let mut squares = Vec::new();
        for (_, version, transform, to) in sizes {
            let modules = grid::fixed(version);
            let from = centers(version);
            for alignment in self.alignments(version, &transform) {
                let from = [from[0], from[1], grid::alignment(version), from[3]];
                squares.extend(self.refine(version, &from, [to[0], to[1], alignment, to[3]], &modules));
            }
            squares.extend(self.refine(version, &from, to, &modules));
        }
        squares.retain(|square| square.fitness >= LIKELY);
        squares
    }

    /// Size of a module of each finder pattern in the directions from the top left one to the right and down.
    fn spans(&mut self, corners: &[Finder; 3]) -> [[f64; 2]; 3] {
        let [top_left, top_right, bottom_left] = corners;
        let direction = |to: &Finder| {
            let distance = top_left.distance(to);
            ((to.x - top_left.x) / distance, (to.y - top_left.y) / distance)
        };
        let (right, down) = (direction(top_right), direction(bottom_left));
        corners.map(|finder| [self.span(&finder, right), self.span(&finder, down)])
    }

    /// Size of a module in one direction: a seventh of the way through the pattern.
    fn span(&mut self, finder: &Finder, (x, y): Point) -> f64 {
        const STEP: f64 = 0.25;
        let longest = 8.0 * finder.module;
        let mut half = |sign: f64| {
            let mut changes = 0;
            let mut way = 0.0;
            while way < longest {
                way += STEP;
                self.samples_left = self.samples_left.saturating_sub(1);
                let dark = self.bitmap.is_dark((finder.x + sign * x * way, finder.y + sign * y * way));
                // Dark core, light ring, dark ring: each change of colour is one border further out.
                if dark == (changes == 1) {
                    changes += 1;
                }
                if changes == 3 {
                    return way;
                }
            }
            3.5 * finder.module
        };
        (half(1.0) + half(-1.0)) / 7.0
    }

    /// Places, in pixels, that look like the alignment pattern at the lower right, best first; none for version 1.
    fn alignments(&mut self, version: u8, transform: &Transform) -> Vec<Point> {
        /// Steps per module.
        const FINE: f64 = 3.0;
        if version < 2 || self.samples_left == 0 {
            return Vec::new();
        }
        let (column, row) = grid::alignment(version);
        // Perspective moves it by a part of the size, so the search widens with it.
        let reach = ((4.0 + grid::size(version) as f64 / 12.0) * FINE) as i32;
        let mut places = Vec::new();
        for j in -reach..=reach {
            for i in -reach..=reach {
                let (u, v) = (column + f64::from(i) / FINE, row + f64::from(j) / FINE);
                let score = self.alignment_score(transform, u, v);
                // 21 of 25 modules.
                if let (17.., Some(place)) = (score, transform.map(u, v)) {
                    places.push((score, i * i + j * j, (u, v), place));
                }
            }
        }
        places.sort_by_key(|&(score, way, ..)| (-score, way));
        let mut best: Vec<(Point, Point)> = Vec::new();
        for (_, _, at, place) in places {
            let apart = |&((u, v), _): &(Point, Point)| (u - at.0).hypot(v - at.1) > 1.5;
            if best.len() < 3 && best.iter().all(apart) {
                best.push((at, place));
            }
        }
        best.into_iter().map(|(_, place)| place).collect()
    }

    /// Modules of an alignment pattern around `(u, v)` that are right, minus those that are wrong; 25 is all.
    fn alignment_score(&mut self, transform: &Transform, u: f64, v: f64) -> i32 {
        self.samples_left = self.samples_left.saturating_sub(25);
        let mut score = 0;
        for y in -2..=2i32 {
            for x in -2..=2i32 {
                let dark = x.abs().max(y.abs()) != 1;
                let seen = transform.map(u + f64::from(x), v + f64::from(y));
                score += if seen.is_some_and(|at| self.bitmap.is_dark(at)) == dark { 1 } else { -1 };
            }
        }
        score
    }

    /// Moves four points until the fixed patterns agree best, by smaller and smaller steps.
    fn refine(
        &mut self,
        version: u8,
        from: &[Point; 4],
        mut to: [Point; 4],
        modules: &[Module],
    ) -> Option<Square> {
        let mut transform = Transform::between(from, &to)?;
        let mut fitness = self.fitness(&transform, modules);
        let mut step = (to[1].0 - to[0].0).hypot(to[1].1 - to[0].1) / (grid::size(version) - 7) as f64;
        for round in 0..5 {
            for point in [2, 1, 3, 0] {
                // Finder patterns are found to a fraction of a module; only the fourth point may be far off.
                if round == 0 && point != 2 {
                    continue;
                }
                for (x, y) in [(step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)] {
                    let mut moved = to;
                    moved[point] = (to[point].0 + x, to[point].1 + y);
                    let Some(changed) = Transform::between(from, &moved) else { continue };
                    let better = self.fitness(&changed, modules);
                    if better > fitness {
                        (fitness, to, transform) = (better, moved, changed);
                    }
                }
            }
            step /= 2.0;
        }
        let size = grid::size(version) as f64;
        let corners = [
            transform.map(0.0, 0.0)?,
            transform.map(size, 0.0)?,
            transform.map(size, size)?,
            transform.map(0.0, size)?,
        ];
        Some(Square { version, corners, transform, fitness })
    }

    /// Share of modules that have the colour they must have, minus the share that has not; the worst without budget.
    fn fitness(&mut self, transform: &Transform, modules: &[Module]) -> f64 {
        const AT: [Point; 5] = [(0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)];
        let count = (modules.len() * AT.len()) as u64;
        let Some(left) = self.samples_left.checked_sub(count) else {
            self.samples_left = 0;
            return -1.0;
        };
        self.samples_left = left;
        let mut right = 0u64;
        for module in modules {
            for (u, v) in AT {
                let seen = transform.map(module.column as f64 + u, module.row as f64 + v);
                right += u64::from(seen.is_some_and(|at| self.bitmap.is_dark(at)) == module.dark);
            }
        }
        2.0 * right as f64 / count as f64 - 1.0
    }
}

impl Square {
    /// Colour of a module by the majority of five places in it.
    fn is_dark(&self, bitmap: &Bitmap, column: usize, row: usize) -> bool {
        const AT: [Point; 5] = [(0.5, 0.5), (0.3, 0.5), (0.7, 0.5), (0.5, 0.3), (0.5, 0.7)];
        let dark = AT.iter().filter(|(u, v)| {
            let seen = self.transform.map(column as f64 + u, row as f64 + v);
            seen.is_some_and(|at| bitmap.is_dark(at))
        });
        dark.count() >= 3
    }
}

/// Versions that fit the distances of the finder patterns, in modules.
fn versions(
    [top_left, top_right, bottom_left]: &[Finder; 3],
    spans: &[[f64; 2]; 3],
) -> impl Iterator<Item = u8> + use<> {
    let across = 2.0 * top_left.distance(top_right) / (spans[0][0] + spans[1][0]);
    let down = 2.0 * top_left.distance(bottom_left) / (spans[0][1] + spans[2][1]);
    let size = (across + down) / 2.0 + 7.0;
    let nearest = ((size - 17.0) / 4.0).round().clamp(1.0, 40.0) as u8;
    (nearest.saturating_sub(2)..=nearest + 2).filter(|version| (1..=40).contains(version))
}

/// Where the fourth corner is when the sizes of the finder patterns tell how far away each is.
///
/// An area seen from afar shrinks with the third power of its depth, and depth is linear over the square.
fn fourth([top_left, top_right, bottom_left]: &[Finder; 3], spans: &[[f64; 2]; 3]) -> Option<Point> {
    let area = |index: usize| spans[index][0] * spans[index][1];
    let depth = |index: usize| (area(0) / area(index)).cbrt();
    let (right, down) = (depth(1), depth(2));
    let last = right + down - 1.0;
    let x = (right * top_right.x + down * bottom_left.x - top_left.x) / last;
    let y = (right * top_right.y + down * bottom_left.y - top_left.y) / last;
    (last > 0.3).then_some((x, y))
}

/// Where the centers of the finder patterns are in the grid, clockwise from the top left, and where a fourth would be.
fn centers(version: u8) -> [Point; 4] {
    let far = grid::size(version) as f64 - 3.5;
    [(3.5, 3.5), (far, 3.5), (far, far), (3.5, far)]
}
