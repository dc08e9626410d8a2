package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/go-analyze/charts"
)

// series is one curve.
type series struct {
	name   string
	values []float64
}

// plot draws curves over whole numbers from 0 as SVG.
func plot(title, subtitle string, curves []series) ([]byte, error) {
	var values [][]float64
	var names, numbers []string
	for _, c := range curves {
		values, names = append(values, c.values), append(names, c.name)
		for i := len(numbers); i < len(c.values); i++ {
			numbers = append(numbers, strconv.Itoa(i))
		}
	}
	painter, err := charts.LineRender(values,
		charts.SVGOutputOptionFunc(),
		charts.DimensionsOptionFunc(900, 500),
		charts.TitleTextOptionFunc(title, subtitle),
		charts.XAxisOptionFunc(charts.XAxisOption{Labels: numbers, LabelCount: 11, BoundaryGap: charts.Ptr(false)}),
		charts.LegendOptionFunc(charts.LegendOption{SeriesNames: names, Offset: charts.OffsetStr{Top: charts.PositionBottom}}),
		func(o *charts.ChartOption) { o.Symbol = charts.Symbol{Shape: charts.SymbolNone} },
	)
	if err != nil {
		return nil, fmt.Errorf("drawing %q: %w", title, err)
	}
	svg, err := painter.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding %q: %w", title, err)
	}
	return svg, nil
}

// plotReady draws how long pods of the last burst and of the last light load took.
func plotReady(r *results) ([]byte, error) {
	var curves []series
	for _, measure := range []string{burst, light} {
		for _, side := range slices.Concat([]string{baseline}, r.Syncers) {
			var last []float64
			for _, one := range r.Rounds {
				if one.Measure == measure && one.Side == side {
					last = one.Ready.Percentiles
				}
			}
			curves = append(curves, series{measure + ", " + side, last})
		}
	}
	return plot("Pod created -> seen Ready, ms", "by percentile of pods, last round", curves)
}

// plotChurn draws memory while pods come and go.
func plotChurn(r *results) ([]byte, error) {
	var curves []series
	for _, s := range r.Still {
		c := series{name: s.Syncer}
		for _, bytes := range s.Churn {
			c.values = append(c.values, mebi(bytes))
		}
		curves = append(curves, c)
	}
	return plot("Memory of vc-syncer while pods come and go, MiB", "by seconds", curves)
}
