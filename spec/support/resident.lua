--- resident(): the memory of this process in bytes, after a collection; nil where the system does not tell.

local page

-- io.popen takes memory: it is not called between two readings.
local function page_size()
  local pipe <close> = assert(io.popen("getconf PAGESIZE"))
  return pipe:read("n")
end

return function()
  page = page or page_size()
  collectgarbage()
  collectgarbage()
  local file <close> = io.open("/proc/self/statm")
  return file and tonumber(file:read("a"):match("^%d+ (%d+)")) * page
end
