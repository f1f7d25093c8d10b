package golden

import "fmt"

const stump = `tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=binary sigmoid:1
feature_names=%s
feature_infos=none none
tree_sizes=1

Tree=0
num_leaves=2
num_cat=0
split_feature=1
threshold=0.5
decision_type=2
left_child=-1
right_child=-2
leaf_value=-1 2
leaf_count=3 1
internal_count=4

end of trees
`

// Stump is the file of a LightGBM model of one split: the second of two features, whose names are separated by a space, gives
// the margin 2 above 0.5, else -1.
func Stump(names string) []byte { return fmt.Appendf(nil, stump, names) }
