--- write_report.lua RESULTS: prints the tables.
--- write_report.lua RESULTS PAGE PLOTS: writes the page, and the plots into the directory PLOTS beside it.

local plots = require "bench.plots"
local report = require "bench.report"
local results = require "bench.results"

local rows, about = results.read(io.lines(arg[1]))
if not arg[2] then
  io.write(report.page(rows, about))
  return
end

local page = assert(io.open(arg[2], "w"))
page:write(report.page(rows, about, arg[3]:match("[^/]+$")))
page:close()
plots.write(rows, arg[3])
