// Nuclei in 2D fluorescence in Fiji, with deepImageJ 3 (Help > Update > Manage update sites > DeepImageJ).
// Written from the sources of deepImageJ 3, July 2025; the export did not run it.

model = getDirectory("The folder of the model, unzipped");
input = File.openDialog("The image");
output = getDirectory("A folder for the result");
run("DeepImageJ Run", "model_path=[" + model + "] input_path=[" + input + "] output_folder=[" + output + "] display_output=all");
