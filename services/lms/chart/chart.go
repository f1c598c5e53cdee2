// Package chart draws what pages show of scores as SVG: a trend, a gauge, a distribution, bars. It computes places and
// words; the templates hold the shapes.
package chart

import (
	"fmt"
	"strings"
	"time"

	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// Charts are numbers for SVG templates: coordinates are formatted here, so that no text of a person ever becomes markup.

// TrendChart is a score over time.
type TrendChart struct {
	W, H         int
	Line, Area   string // path data
	Bands        []trendBand
	Ticks        []trendTick
	X, Y         string // of the last point
	Now          risk.Score
	Level        risk.Level
	Rows         []trendRow // the same as a table, newest first
	Change       string     // in words: "down 0.041 in 7 days"
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
	Step  int64 // millionths since the row before it in time
}

// Bounds are where MEDIUM, HIGH and CRITICAL begin.
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

// BoundsOf reads the bounds of a profile.
func BoundsOf(b risk.Bounds) Bounds {
	return Bounds{b.Medium.Float(), b.High.Float(), b.Critical.Float()}
}

// ProfileOf is the profile that made a score, or the default one for a name that this release does not know.
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

// DrawTrend makes a chart of points, the last being now; nil when there are fewer than two.
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
	from := 0.0
	for i, l := range risk.Levels {
		to := 1.0
		if i < len(b) {
			to = b[i]
		}
		c.Bands = append(c.Bands, trendBand{Level: l, Y: fmt.Sprintf("%.1f", y(to)), H: fmt.Sprintf("%.1f", y(from)-y(to)), LabelY: fmt.Sprintf("%.1f", (y(to)+y(from))/2+4), Caption: fmt.Sprintf("%.1f", to)})
		from = to
	}
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
	week := points[0]
	for _, p := range points {
		if !p.At.After(last.Add(-7 * 24 * time.Hour)) {
			week = p
		}
	}
	days := int(last.Sub(week.At).Hours()/24 + 0.5)
	switch change := end.Score.Float() - week.Score.Float(); {
	case change > 0.0005:
		c.Change = fmt.Sprintf("up %.3f in %s", change, words.Plural(days, "day", "days"))
	case change < -0.0005:
		c.Change = fmt.Sprintf("down %.3f in %s", -change, words.Plural(days, "day", "days"))
	default:
		c.Change = fmt.Sprintf("unchanged in %s", words.Plural(days, "day", "days"))
	}
	return c
}

// Gauge is a half circle whose length is 1000 units.
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

// DrawGauge draws a score on a scale that shows the levels.
func DrawGauge(s risk.Score, l risk.Level, b Bounds) Gauge {
	g := Gauge{Score: s, Level: l, Dash: fmt.Sprintf("%d 2000", int(1000*s.Float()+0.5))}
	from := 0.0
	for i, level := range risk.Levels {
		to := 1.0
		if i < len(b) {
			to = b[i]
		}
		gap := 6.0 // between bands
		if level == risk.Critical {
			gap = 0
		}
		g.Bands = append(g.Bands, gaugeBand{Level: level, Dash: fmt.Sprintf("%.0f 2000", 1000*(to-from)-gap), Offset: fmt.Sprintf("%.0f", -1000*from)})
		from = to
	}
	return g
}

// Share is a horizontal bar of 1000 units.
type Share struct {
	X, W  string
	Class string
}

// Distribution is how many people are at each level.
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

// DrawDistribution draws how many people have each level.
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

// Bar is a value in [0, 1] as 1000 units.
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
