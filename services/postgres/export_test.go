package postgres

// ReportTip is what Open runs for each pool.
var ReportTip = reportTip
