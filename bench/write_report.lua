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

local draws = os.execute("command -v gnuplot >/dev/null")
if not draws then io.stderr:write("gnuplot is missing: the page has no plots\n") end

local page = assert(io.open(arg[2], "w"))
page:write(report.page(rows, about, draws and arg[3]:match("[^/]+$")))
page:close()
if draws then plots.write(rows, arg[3]) end
