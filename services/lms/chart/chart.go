// Package chart computes the SVG charts of scores: a trend, a gauge, a distribution and bars. It formats coordinates as
// numbers; the templates have the shapes. No text of a person becomes markup.
package chart

import (
	"fmt"
	"strings"
	"time"

	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// TrendChart is a score over time.
type TrendChart struct {
	W, H         int
	Line, Area   string // path data
	Bands        []trendBand
	Ticks        []trendTick
	X, Y         string // of the last point
	Now          risk.Score
	Level        risk.Level
	Rows         []trendRow // the points as a table, the newest first
	Change       string     // for example "down 0.041 in 7 days"
	Left, Right  int
	Bottom, Base int
}

type trendBand struct {
	Level   risk.Level
	Y, H    string
	LabelY  string
	Caption string
}

type trendTick struct{ X, Label string }

type trendRow struct {
	At    time.Time
	Score risk.Score
	Level risk.Level
	Step  int64 // change since the point before, in millionths
}

// Bounds are the lowest scores of MEDIUM, HIGH and CRITICAL.
type Bounds [3]float64

// Level is the level of a score.
func (b Bounds) Level(s risk.Score) risk.Level {
	l := risk.Low
	for i, from := range b {
		if s.Float() >= from {
			l = risk.Levels[i+1]
		}
	}
	return l
}

// each calls band with the range of scores of every level, the lowest first.
func (b Bounds) each(band func(l risk.Level, from, to float64)) {
	from := 0.0
	for i, l := range risk.Levels {
		to := 1.0
		if i < len(b) {
			to = b[i]
		}
		band(l, from, to)
		from = to
	}
}

// BoundsOf converts the bounds of a profile.
func BoundsOf(b risk.Bounds) Bounds {
	return Bounds{b.Medium.Float(), b.High.Float(), b.Critical.Float()}
}

// ProfileOf returns the profile of a name, or the default profile if there is none of this name.
func ProfileOf(name string) *risk.Profile {
	p, err := risk.ProfileByName(name)
	if err != nil {
		p, err = risk.ProfileByName(risk.Default)
	}
	if err != nil {
		panic(err) // the default is compiled in
	}
	return p
}

// DrawTrend makes a chart of points in order of time, of which the last is the present. Dates are in loc. It returns
// nil for fewer than two points.
func DrawTrend(points []risk.Point, b Bounds, loc *time.Location) *TrendChart {
	if len(points) < 2 {
		return nil
	}
	const w, h, left, right, top, bottom = 720, 272, 34, 66, 10, 26
	c := &TrendChart{W: w, H: h, Left: left, Right: w - right, Bottom: h - bottom, Base: h - 8}
	first, last := points[0].At, points[len(points)-1].At
	length := last.Sub(first).Seconds()
	if length <= 0 {
		return nil
	}
	x := func(t time.Time) float64 { return left + (w-left-right)*t.Sub(first).Seconds()/length }
	y := func(v float64) float64 { return top + (h-top-bottom)*(1-v) }
	var line strings.Builder
	every := max(1, len(points)/180)
	for i, p := range points {
		if i%every != 0 && i != len(points)-1 {
			continue
		}
		verb := "L"
		if line.Len() == 0 {
			verb = "M"
		}
		fmt.Fprintf(&line, "%s%.1f %.1f", verb, x(p.At), y(p.Score.Float()))
	}
	c.Line = line.String()
	c.Area = fmt.Sprintf("%sL%.1f %.1fL%d %.1fZ", c.Line, x(last), y(0), left, y(0))
	b.each(func(l risk.Level, from, to float64) {
		c.Bands = append(c.Bands, trendBand{
			Level: l, Y: fmt.Sprintf("%.1f", y(to)), H: fmt.Sprintf("%.1f", y(from)-y(to)),
			LabelY: fmt.Sprintf("%.1f", (y(to)+y(from))/2+4), Caption: fmt.Sprintf("%.1f", to),
		})
	})
	for i := range 5 {
		at := first.Add(time.Duration(float64(i) / 4 * float64(last.Sub(first))))
		c.Ticks = append(c.Ticks, trendTick{X: fmt.Sprintf("%.1f", x(at)), Label: at.In(loc).Format("2 Jan")})
	}
	end := points[len(points)-1]
	c.X, c.Y = fmt.Sprintf("%.1f", x(end.At)), fmt.Sprintf("%.1f", y(end.Score.Float()))
	c.Now, c.Level = end.Score, b.Level(end.Score)
	for i := len(points) - 1; i >= 0 && len(c.Rows) < 31; i-- {
		row := trendRow{At: points[i].At.In(loc), Score: points[i].Score, Level: b.Level(points[i].Score)}
		if i > 0 {
			row.Step = points[i].Score.Micro() - points[i-1].Score.Micro()
		}
		c.Rows = append(c.Rows, row)
	}
	c.Change = changeOf(points)
	return c
}

// changeOf says how the score changed within the last week, or since the first point if that is later.
func changeOf(points []risk.Point) string {
	end, week := points[len(points)-1], points[0]
	for _, p := range points {
		if !p.At.After(end.At.Add(-7 * 24 * time.Hour)) {
			week = p
		}
	}
	days := words.Plural(int(end.At.Sub(week.At).Hours()/24+0.5), "day", "days")
	switch change := end.Score.Float() - week.Score.Float(); {
	case change > 0.0005:
		return fmt.Sprintf("up %.3f in %s", change, days)
	case change < -0.0005:
		return fmt.Sprintf("down %.3f in %s", -change, days)
	}
	return "unchanged in " + days
}

// Gauge is a half circle with a length of 1000 units.
type Gauge struct {
	Score risk.Score
	Level risk.Level
	Dash  string
	Bands []gaugeBand
}

type gaugeBand struct {
	Level        risk.Level
	Dash, Offset string
}

// DrawGauge makes the gauge of a score with the bands of the levels.
func DrawGauge(s risk.Score, l risk.Level, b Bounds) Gauge {
	g := Gauge{Score: s, Level: l, Dash: fmt.Sprintf("%d 2000", int(1000*s.Float()+0.5))}
	b.each(func(level risk.Level, from, to float64) {
		gap := 6.0 // between bands
		if level == risk.Critical {
			gap = 0
		}
		g.Bands = append(g.Bands, gaugeBand{
			Level: level, Dash: fmt.Sprintf("%.0f 2000", 1000*(to-from)-gap), Offset: fmt.Sprintf("%.0f", -1000*from),
		})
	})
	return g
}

// Share is a part of a horizontal bar with a length of 1000 units.
type Share struct {
	X, W  string
	Class string
}

// Distribution is how many people have each level.
type Distribution struct {
	Rows  []distributionRow
	Total int
}

type distributionRow struct {
	Level risk.Level
	Count int
	Part  float64
	Bar   Share
}

// DrawDistribution makes the chart of c. Its parts add up to the whole bar.
func DrawDistribution(c risk.LevelCounts) Distribution {
	counts := []int{c.Low, c.Medium, c.High, c.Critical}
	d := Distribution{}
	for _, n := range counts {
		d.Total += n
	}
	at := 0.0
	for i, n := range counts {
		part := float64(n) / float64(max(1, d.Total))
		d.Rows = append(d.Rows, distributionRow{Level: risk.Levels[i], Count: n, Part: part,
			Bar: Share{
				X:     fmt.Sprintf("%.1f", at),
				W:     fmt.Sprintf("%.1f", max(0, 1000*part-3)),
				Class: strings.ToLower(string(risk.Levels[i])),
			}})
		at += 1000 * part
	}
	return d
}

// Bar is a bar from 0 to v, a value in [0, 1].
func Bar(v float64, class string) Share {
	return Share{X: "0", W: fmt.Sprintf("%.1f", 1000*min(1, max(0, v))), Class: class}
}

// CountLevels counts how many people have each level.
func CountLevels(people []risk.Standing) risk.LevelCounts {
	var c risk.LevelCounts
	for _, p := range people {
		switch p.Level {
		case risk.Low:
			c.Low++
		case risk.Medium:
			c.Medium++
		case risk.High:
			c.High++
		case risk.Critical:
			c.Critical++
		}
	}
	return c
}
