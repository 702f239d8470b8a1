--- The pages of the documentation, and what is written on them.

local pages = {}

function pages.read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

-- Adds the pages in a directory to a list, which it sorts and returns.
local function add_pages(directory, list)
  for name in require("lfs").dir(directory) do
    if name:find("%.md$") then list[#list + 1] = directory .. "/" .. name end
  end
  table.sort(list)
  return list
end

--- Lists of paths: the reference, the reference and the guides, and all pages of the project.
pages.reference = add_pages("docs/reference", {})
pages.guides = add_pages("docs/reference", add_pages("docs", { "README.md" }))
pages.all = {}
for _, directory in ipairs { ".", "bench", "docs", "docs/design", "docs/reference" } do
  add_pages(directory, pages.all)
end

--- Fails with all that is wrong at once.
function pages.expect_none(wrong)
  table.sort(wrong)
  assert(#wrong == 0, "\n" .. table.concat(wrong, "\n"))
end

--- Calls on_line(line, number) for the prose, and on_block(language, marker, text, number) for the blocks of a
--- page. A marker is the text of an HTML comment in the line above a block: "endless", "needs: MODULE",
--- "options: FOR LUA" or "not run: REASON".
function pages.scan(page, on_line, on_block)
  local number, block, language, marker, begin = 0, nil, nil, nil, nil
  for line in (pages.read(page) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local fence = line:match("^%s*```(.*)$")
    if block and fence then
      if on_block then on_block(language, marker, table.concat(block, "\n"), begin) end
      block, marker = nil, nil
    elseif block then
      block[#block + 1] = line
    elseif fence then
      block, language, begin = {}, fence, number
    else
      marker = line:match("^<!%-%- (.-) %-%->$")
      if on_line then on_line(line, number) end
    end
  end
  assert(block == nil, page .. ": a block without end")
end

return pages
